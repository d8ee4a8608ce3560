"""A receiver of webhooks on loopback that answers as it is told."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Answering = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Received:
    """One request."""

    line: str
    headers: dict[str, str]
    body: str


@dataclass
class Receiver:
    """Where it listens and what it got."""

    port: int
    received: list[Received] = field(default_factory=list)
    connections: int = 0

    @property
    def place(self) -> str:
        """What an operator would allow."""
        return f"127.0.0.1:{self.port}"


def raw(text: str) -> Answering:
    """Answers with just this."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(text.encode())
        await writer.drain()

    return answer


def status(code: int, *headers: str, body: str = "") -> Answering:
    """Answers with a status."""
    lines = [f"HTTP/1.1 {code} X", *headers, f"content-length: {len(body)}", "", body]
    return raw("\r\n".join(lines))


@asynccontextmanager
async def receiver(answer: Answering, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver for as long as the block lasts."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        got.connections += 1
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        # Who sends may go away at any time.
        gone = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError)
        with contextlib.suppress(*gone):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            pairs = (line.partition(": ") for line in head[1:] if line)
            headers = {name.lower(): value for name, _, value in pairs}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            got.received.append(Received(head[0], headers, body.decode()))
            await answer(writer)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            writer.close()
            await writer.wait_closed()

    tasks: set[asyncio.Task[None]] = set()
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    got = Receiver(server.sockets[0].getsockname()[1])
    try:
        yield got
    finally:
        server.close()
        await server.wait_closed()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
