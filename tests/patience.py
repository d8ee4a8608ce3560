"""How long a test waits for what must come."""

PATIENCE_S = 300.0
"""Only a failure takes so long: a busy machine keeps what is well from running for a while."""
