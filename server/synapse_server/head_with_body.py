"""A response's head leaves in one write with the body that follows it."""

from __future__ import annotations

import asyncio


class HeadWithBody(asyncio.Transport):
    """The transport of one response.

    Its first write is kept until the second one, and no longer than until the event loop's next
    turn: a whole answer is one system call and one packet instead of two, each of which wakes its
    client; the head of a stream does not wait for what has not been computed.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._is_first = True
        self._head = b""
        self._soon: asyncio.Handle | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send it; the first time with what comes next."""
        if self._is_first:
            self._is_first = False
            self._head = bytes(data)
            self._soon = self._loop.call_soon(self._flush)
            return
        head = self._taken()
        if head:
            self._transport.writelines([head, data])
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Send what is kept, and close."""
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        """Whether it is closed or about to be."""
        return self._transport.is_closing()

    def _flush(self) -> None:
        head = self._taken()
        if head and not self._transport.is_closing():
            self._transport.write(head)

    def _taken(self) -> bytes:
        head, self._head = self._head, b""
        if self._soon is not None:
            self._soon.cancel()
            self._soon = None
        return head
