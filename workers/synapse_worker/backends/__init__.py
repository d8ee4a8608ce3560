"""Models of Triton's Python backend; imported inside its stub process, never elsewhere."""
