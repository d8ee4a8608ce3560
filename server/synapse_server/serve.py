"""`synapse serve`: one process from the socket to the engine."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

import uvicorn

from synapse.api.asgi import AsgiApp
from synapse.domain.errors import Unavailable
from synapse_server.banner import ready_text
from synapse_server.config import ServerConfig, StartError
from synapse_server.http_protocol import HttpProtocol
from synapse_server.loopback import is_loopback
from synapse_server.node import Node

BACKLOG = 4096
KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections: who closes first must not be the one who is asked."""

GRACE_S = 2
"""How long open requests may still take once the server stops."""

COLLECT_EVERY = (10_000, 20, 20)
"""Python's own figures have everything that lives looked through each second under load."""


async def serve(config: ServerConfig) -> None:
    """Serve until SIGINT or SIGTERM.

    Raises:
        StartError: the server cannot start.
        CancelledError: it was told to stop before it had started.
    """
    if not config.auth and not is_loopback(config.host):
        raise StartError(
            f"SYNAPSE_AUTH=off would let everybody in who reaches {config.host}: leave it on, or "
            "choose --host 127.0.0.1, which only this machine reaches"
        )
    listener = _listen(config)
    stop = _stopped_by_signals()
    with contextlib.closing(listener):
        async with Node(config) as node:
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
            stop.server = server
            spare_pauses()
            first_key = await _first_key(node)
            text = ready_text(config, node.specs, sys.argv[0], first_key)
            print(text, flush=True)  # noqa: T201 - for the user
            await server.serve(sockets=[listener])


def spare_pauses() -> None:
    """Have the garbage collector leave alone what the start has made.

    Else all of it is looked through again and again: everybody waits for 60 ms meanwhile.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_EVERY)


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


class _Stop:
    """What a signal does: end the server, or the start of one."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self.server: uvicorn.Server | None = None

    def __call__(self) -> None:
        """Stop; a second time without waiting for open requests."""
        if self.server is None:
            self._task.cancel()
        else:
            self.server.force_exit = self.server.should_exit
            self.server.should_exit = True


def _stopped_by_signals() -> _Stop:
    task = asyncio.current_task()
    assert task is not None
    stop = _Stop(task)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return stop


def _listen(config: ServerConfig) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    # Said in full: of a socket that does not say TCP, asyncio leaves Nagle's algorithm on, and
    # every answer waits 40 ms for its client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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
