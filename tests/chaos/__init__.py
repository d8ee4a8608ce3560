"""Faults at random against a real server, and whether its promises held (`make chaos`)."""
