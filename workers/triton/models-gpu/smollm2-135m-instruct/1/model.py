"""Loaded by Triton: NVIDIA's vLLM backend, to which priorities are added."""

from synapse_worker.backends.vllm import prioritising

TritonPythonModel = prioritising()
