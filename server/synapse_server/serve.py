"""`synapse serve`: one process from the socket to the engine."""

from __future__ import annotations

import contextlib
import errno
import socket

import uvicorn

from synapse_server.asgi import AsgiApp
from synapse_server.banner import ready_text
from synapse_server.config import ServerConfig, StartError
from synapse_server.node import Node

BACKLOG = 4096
GRACE_S = 2
"""How long open requests may still take once the server stops."""


async def serve(config: ServerConfig) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        StartError: the server cannot start.
    """
    listener = _listen(config)
    with contextlib.closing(listener):
        async with Node(config) as node:
            server = uvicorn.Server(
                uvicorn.Config(
                    AsgiApp(node.api),
                    lifespan="off",
                    log_level="warning",
                    access_log=False,
                    server_header=False,
                    timeout_graceful_shutdown=GRACE_S,
                )
            )
            print(ready_text(config.url, node.specs), flush=True)  # noqa: T201 - for the user
            await server.serve(sockets=[listener])


def _listen(config: ServerConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise StartError(
                f"port {config.port} is in use: stop what listens there or choose another "
                f"with --port"
            ) from error
        reason = error.strerror or str(error)
        raise StartError(f"cannot listen on {config.host}:{config.port}: {reason}") from error
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener
