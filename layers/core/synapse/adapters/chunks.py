"""Streams of bytes, cut to the size that suits where they go."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator


async def regrouped(chunks: AsyncIterator[bytes], size: int) -> AsyncGenerator[bytes, None]:
    """The same bytes in pieces of `size`, the last one shorter; no piece is empty."""
    held = bytearray()
    async for chunk in chunks:
        held += chunk
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)
