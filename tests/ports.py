"""Ports for servers that are told theirs, and may be started again with it."""

import random
import socket

LOWEST, HIGHEST = 10_000, 32_000
"""Below those that Linux gives to whoever connects or asks for any: nobody else comes by chance."""


def free_port() -> int:
    """One of 127.0.0.1 on which nobody listens; of its own for each who asks, but for rare luck."""
    while True:
        port = random.SystemRandom().randint(LOWEST, HIGHEST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
