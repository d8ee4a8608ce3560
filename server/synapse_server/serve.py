"""`synapse serve`: one process from the socket to the engine.

Its start has two halves that take about as long as each other: Triton comes up, and this process
loads what answers requests. They run side by side, so what is imported here is kept small.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from synapse_server.config import ServerConfig, StartError
from synapse_server.descriptors import allow_many_files
from synapse_server.ground import Ground
from synapse_server.loopback import is_loopback
from synapse_server.pauses import collect_nothing

if TYPE_CHECKING:
    import uvicorn

    Answer = Callable[[Ground, socket.socket, Callable[[uvicorn.Server], None]], Awaitable[None]]

BACKLOG = 4096
SWITCH_EVERY_S = 0.0005
"""How long the loop waits for a turn while the other half is loaded; 5 ms if nothing is said."""


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
    collect_nothing()
    allow_many_files()
    listener = _listen(config)
    # Of port 0 only the socket knows which it has become.
    config = replace(config, port=listener.getsockname()[1])
    stop = _stopped_by_signals()
    with contextlib.closing(listener):
        async with Ground(config) as ground:
            with _quick_turns():
                answer = await asyncio.to_thread(_other_half)
            await answer(ground, listener, stop.by)


def _other_half() -> Answer:
    """Load it: that takes a while, in which the loop sees to Triton."""
    # There are none. To look for them, pydantic reads the metadata of every package there is.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    from synapse_server.front import answer

    return answer


@contextlib.contextmanager
def _quick_turns() -> Iterator[None]:
    usual_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_EVERY_S)
    try:
        yield
    finally:
        sys.setswitchinterval(usual_s)


class _Stop:
    """What a signal does: end the server, or the start of one."""

    def __init__(self, task: asyncio.Task[Any]) -> None:
        self._task = task
        self._server: uvicorn.Server | None = None

    def by(self, server: uvicorn.Server) -> None:
        """From now on it is this server that is to end."""
        self._server = server

    def __call__(self) -> None:
        """Stop; a second time without waiting for open requests."""
        if self._server is None:
            self._task.cancel()
        else:
            self._server.force_exit = self._server.should_exit
            self._server.should_exit = True


def _stopped_by_signals() -> _Stop:
    task = asyncio.current_task()
    assert task is not None
    stop = _Stop(task)
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    return stop


def _remedy(config: ServerConfig, error: OSError) -> str:
    if isinstance(error, PermissionError):
        return "; choose a --port from 1024 on, and have a proxy listen there"
    return "; write --host without brackets" if config.host.startswith("[") else ""


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
        told = f"cannot listen on {config.host}:{config.port}: {reason}{_remedy(config, error)}"
        raise StartError(told) from error
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener
