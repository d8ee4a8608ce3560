"""A package: the Triton that its tests share ends with the last of them."""
