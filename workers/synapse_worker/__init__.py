"""Runs and supervises a Triton Inference Server: the worker of every pool."""
