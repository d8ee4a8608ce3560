"""Loaded by Triton; the model itself is in the worker package."""

from synapse_worker.backends.embedding import TritonPythonModel as TritonPythonModel
