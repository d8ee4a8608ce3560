"""The server itself, from the socket to the use cases; its workers come up meanwhile."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Callable, Iterator

import uvicorn

from synapse.api.asgi import AsgiApp
from synapse.domain.errors import Unavailable
from synapse_server.banner import ready_text
from synapse_server.config import StartError
from synapse_server.ground import Ground
from synapse_server.http_protocol import HttpProtocol
from synapse_server.node import Node
from synapse_server.pauses import spare_pauses

KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections: who closes first must not be the one who is asked."""

GRACE_S = 2
"""How long open requests may still take once the server stops."""


async def answer(
    ground: Ground, listener: socket.socket, stopped_by: Callable[[uvicorn.Server], None]
) -> None:
    """Answer what comes to the listener, once the workers are up, until the server is stopped.

    `stopped_by` is told the server before it serves.

    Raises:
        StartError: something cannot be opened or started.
    """
    async with Node(ground) as node:
        server = _Server(
            uvicorn.Config(
                AsgiApp(node.api),
                http=HttpProtocol,
                ws="none",
                lifespan="off",
                log_level="warning",
                access_log=False,
                server_header=False,
                # Behind a proxy that hands on what a client sends, anybody could be anywhere.
                proxy_headers=False,
                timeout_graceful_shutdown=GRACE_S,
                timeout_keep_alive=KEEP_ALIVE_S,
            )
        )
        spare_pauses()
        await node.begin()
        stopped_by(server)
        first_key = await _first_key(node)
        text = ready_text(ground.config, ground.specs, sys.argv[0], first_key)
        print(text, flush=True)  # noqa: T201 - for the user
        await server.serve(sockets=[listener])


async def _first_key(node: Node) -> str | None:
    try:
        return await node.access.first_key()
    except Unavailable as error:
        raise StartError(error.message) from error


class _Server(uvicorn.Server):
    """Leaves signals alone: uvicorn would raise them again at its end and skip our clean-up."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
