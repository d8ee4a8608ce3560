"""Calls to servers of strangers."""
