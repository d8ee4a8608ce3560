"""The one-machine target: the same use cases in one process, with SQLite and Triton."""
