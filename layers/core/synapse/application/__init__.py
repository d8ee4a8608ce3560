"""Use cases. They know the domain and the ports, and nothing of where they run."""
