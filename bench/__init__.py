"""Benchmarks: `make bench` runs them all and prints what was measured beside the goal."""
