"""Choosing ports, and noticing early that one is taken."""

import argparse
import socket

from synapse_worker.errors import PortTaken

MAX_PORT = 65_535


def port_number(text: str) -> int:
    """An argument that is a port; 0 is any that is free.

    Raises:
        ArgumentTypeError: there is no such port.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 5 and int(text) <= MAX_PORT):
        raise argparse.ArgumentTypeError(f"{text!r}: must be a port, from 0 to {MAX_PORT}")
    return int(text)


def free_ports(host: str, count: int) -> list[int]:
    """Ports that nobody listens on; all held open until the last is found, so all differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for held in sockets:
            held.bind((host, 0))
        return [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()


def check_port_is_free(host: str, port: int) -> None:
    """Triton's own message for this comes late and is wordy.

    Raises:
        PortTaken: it is not.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PortTaken(
                f"Port {port} on {host} is not free: {(error.strerror or str(error)).lower()}",
                "Stop what uses it or choose another port",
            ) from error
