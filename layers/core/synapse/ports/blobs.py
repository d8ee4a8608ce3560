"""Bytes too large for a record."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Protocol


class BlobStore(Protocol):
    """Bytes too large for a record."""

    @property
    def inline_bytes(self) -> int:
        """The largest text that is better kept in a record than here."""
        ...

    async def put(self, key: str, data: bytes) -> None:
        """Store `data` durably under `key`, replacing what was there."""
        ...

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        """Store what `chunks` gives, durably and never whole in memory; returns its size.

        All of it or nothing: until the end, and for ever if `chunks` raises or the call is
        cancelled, `key` is as it was before. What `chunks` raises is raised as it is.
        """
        ...

    async def get(self, key: str) -> bytes:
        """The bytes under `key`.

        Raises:
            KeyError: there are none.
        """
        ...

    def stream(self, key: str, start: int = 0) -> AsyncGenerator[bytes, None]:
        """The bytes under `key` from offset `start` on, in pieces; none if it ends before.

        A key that is replaced meanwhile gives the rest of the old bytes, or `Unavailable`; never
        a mixture.

        Raises:
            KeyError: there are none.
        """
        ...

    async def delete(self, key: str) -> None:
        """Forget `key`; unknown keys are ignored."""
        ...
