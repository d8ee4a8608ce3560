"""The engine port over the gRPC of Triton, for workers of every kind."""
