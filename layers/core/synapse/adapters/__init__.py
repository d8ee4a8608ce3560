"""Implementations of the ports: `aws`, `local` (one machine) and `triton` (both)."""
