"""A package: the server that its tests share ends with the last of them."""
