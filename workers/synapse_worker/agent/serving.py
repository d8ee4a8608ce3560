"""The life of a worker under control: from its start until it is told to stop, or gives up."""

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import uvicorn

from synapse_worker.agent.agent import Agent
from synapse_worker.agent.control import control_api
from synapse_worker.errors import WorkerError

logger = logging.getLogger(__name__)

TOKEN_VARIABLE = "SYNAPSE_AGENT_TOKEN"
GRACE_S = 2
BACKLOG = 64


@dataclass(frozen=True)
class ControlConfig:
    """Where the control API listens, and the token it wants; a port of 0 is any free one."""

    host: str = "127.0.0.1"
    port: int = 0
    token: str = ""

    def __post_init__(self) -> None:
        """Whoever reaches it may load and unload: others than this machine need the token."""
        if not self.token and not _is_loopback(self.host):
            raise WorkerError(
                f"The control API is not opened on {self.host} without a token",
                f"Set {TOKEN_VARIABLE}, or bind to 127.0.0.1",
            )


class ControlServer:
    """Serves the control API of one agent in this event loop."""

    def __init__(self, agent: Agent, config: ControlConfig) -> None:
        """Nothing listens yet."""
        self._config = config
        self._server = _Server(
            uvicorn.Config(
                control_api(agent, config.token),
                lifespan="off",
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=GRACE_S,
            )
        )
        self._socket: socket.socket | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """`host:port`, once it is open."""
        assert self._socket is not None
        host, port = self._socket.getsockname()[:2]
        return f"{host}:{port}"

    async def open(self) -> None:
        """Listen.

        Raises:
            WorkerError: that address cannot be had.
        """
        family = socket.AF_INET6 if ":" in self._config.host else socket.AF_INET
        try:
            self._socket = socket.create_server(
                (self._config.host, self._config.port), family=family, backlog=BACKLOG
            )
        except OSError as error:
            raise WorkerError(
                f"The control API cannot listen on {self._config.host}:{self._config.port}: "
                f"{(error.strerror or str(error)).lower()}",
                "Stop what uses it or choose another port",
            ) from error
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def close(self) -> None:
        """Stop listening, and give open requests a moment."""
        if self._task is not None and self._socket is not None:
            self._server.should_exit = True
            await self._task
            self._socket.close()


class _Server(uvicorn.Server):
    """Leaves signals alone: they are the worker's, which has more to end than this."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def serve(agent: Agent, control: ControlServer) -> str:
    """Run the worker until SIGINT or SIGTERM, which drain it, or until it gives up.

    Returns why it gave up; nothing if it was told to stop.

    Raises:
        WorkerError: it could not be started.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await control.open()
    starting = asyncio.create_task(agent.start())
    tasks: set[asyncio.Task[Any]] = {asyncio.create_task(stopped.wait()), starting}
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not starting.done():
            return ""
        await starting
        tasks.add(failing := asyncio.create_task(agent.wait_failed()))
        await asyncio.wait(tasks - {starting}, return_when=asyncio.FIRST_COMPLETED)
        if failing.done():
            return f"Triton was given up: {failing.result().cause}"
        if not await agent.drain():
            logger.warning("what is still under way has to end while Triton stops")
        return ""
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await agent.stop()
        await control.close()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
