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
    silent: bool = False
    _frozen: int = 0
    _writers: list[asyncio.StreamWriter] = field(default_factory=list)
    _pumps: set[asyncio.Task[None]] = field(default_factory=set)

    def cut(self) -> None:
        """Break all connections without a goodbye."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    def freeze(self) -> None:
        """Let nothing more pass over the connections there are; new ones work."""
        self._frozen = self.connections

    def pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        task = asyncio.create_task(self._pump(reader, writer, self.connections))
        self._pumps.add(task)
        task.add_done_callback(self._pumps.discard)

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
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)


@contextlib.asynccontextmanager
async def wire(listen: str, target: str) -> AsyncIterator[Wire]:
    """A wire from the socket `listen` to the socket `target`."""
    made = Wire()

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.connections += 1
        far_reader, far_writer = await asyncio.open_unix_connection(target)
        made.pump(reader, far_writer)
        made.pump(far_reader, writer)

    server = await asyncio.start_unix_server(connect, listen)
    try:
        yield made
    finally:
        server.close()
        await made.close()
