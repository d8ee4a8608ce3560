"""The wire between a client and a server, to be cut."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field


@dataclass
class Wire:
    """Passes bytes from one unix socket to another until it is cut or frozen."""

    connections: int = 0
    open: int = 0
    silent: bool = False
    _frozen: int = 0
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    def cut(self) -> None:
        """Break all connections without a goodbye."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def freeze(self) -> None:
        """Let nothing more pass over the connections there are; new ones work."""
        self._frozen = self.connections

    async def join(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, target: str
    ) -> None:
        """Serve one connection to its end."""
        self.connections += 1
        number = self.connections
        self._writers.append(writer)
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.open += 1
        with contextlib.suppress(OSError):
            far_reader, far_writer = await asyncio.open_unix_connection(target)
            self._writers.append(far_writer)
            await asyncio.gather(
                self._pump(reader, far_writer, number), self._pump(far_reader, writer, number)
            )
        self.open -= 1

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                if number > self._frozen and not self.silent:
                    writer.write(data)
        writer.transport.abort()

    async def close(self) -> None:
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.cut()


@contextlib.asynccontextmanager
async def wire(listen: str, target: str) -> AsyncIterator[Wire]:
    """A wire from the socket `listen` to the socket `target`."""
    made = Wire()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await made.join(reader, writer, target)

    server = await asyncio.start_unix_server(connect, listen)
    try:
        yield made
    finally:
        server.close()
        await made.close()
