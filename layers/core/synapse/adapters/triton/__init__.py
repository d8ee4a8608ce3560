"""Adapters: triton."""
