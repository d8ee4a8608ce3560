"""The HTTP surface: one resolver, hosted by the API Lambda and by the one-machine server."""
