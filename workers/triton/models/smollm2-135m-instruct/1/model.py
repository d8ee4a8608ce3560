"""Loaded by Triton; the model itself is in the worker package."""

from synapse_worker.backends.llamacpp import TritonPythonModel as TritonPythonModel
