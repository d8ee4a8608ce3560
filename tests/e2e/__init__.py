"""A package: what its tests share, some fifty processes, ends with the last of them."""
