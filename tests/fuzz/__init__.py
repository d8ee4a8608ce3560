"""The whole HTTP API of a real server, asked for thousands of things that nobody should ask for."""
