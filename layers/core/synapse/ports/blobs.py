"""Bytes too large for a record."""

from __future__ import annotations

from typing import Protocol


class BlobStore(Protocol):
    """Bytes too large for a record."""

    async def put(self, key: str, data: bytes) -> None:
        """Store `data` durably under `key`, replacing what was there."""
        ...

    async def get(self, key: str) -> bytes:
        """The bytes under `key`.

        Raises:
            KeyError: there are none.
        """
        ...

    async def delete(self, key: str) -> None:
        """Forget `key`; unknown keys are ignored."""
        ...
