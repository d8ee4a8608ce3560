"""Adapters: aws."""
