"""Models of Triton's Python backend; imported inside its stub process, never elsewhere."""

# Triton's Python backend imports it at a model's first request, which waited 30 ms for that.
import asyncio  # noqa: F401
