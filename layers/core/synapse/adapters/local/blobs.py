"""Blobs as files of a folder."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, suppress
from io import BufferedReader
from pathlib import Path
from typing import ParamSpec, TypeVar

from synapse.adapters.chunks import regrouped
from synapse.adapters.local.failures import StorageError, explain, unavailable
from synapse.adapters.local.partial_file import PARTIAL, PartialFile
from synapse.domain.errors import Unavailable

PIECE_BYTES = 1024 * 1024
"""Of a stream: what goes to or comes from the disk at once."""

INLINE_BYTES = 128 * 1024
"""A file costs two flushes of the disk, a row shares one with others: only what is large is one."""

PROBE = "a probe of the disk"

P = ParamSpec("P")
T = TypeVar("T")


class FolderBlobStore:
    """A file per key, named by the key's hash: any key is safe, and no folder grows too large."""

    inline_bytes = INLINE_BYTES

    def __init__(self, folder: Path) -> None:
        """Use (and make) `folder`.

        Raises:
            StorageError: it cannot be made.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(explain(error, folder)) from error
        self._folder = folder
        self._trouble = ""

    def last_trouble(self) -> str:
        """Why the last write failed; empty if it went well."""
        return self._trouble

    async def try_again(self) -> None:
        """Write something if the last write failed: nobody else may come to see that it is over.

        Raises:
            Unavailable: it is not.
        """
        if self._trouble:
            await self._written(_probe, self._path(PROBE))
            self._trouble = ""

    async def put(self, key: str, data: bytes) -> None:
        """Store `data` durably under `key`, replacing what was there; readers see old or new."""
        await self._written(_publish, self._path(key), data)
        self._trouble = ""

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        """See the port."""
        partial, size = PartialFile(self._path(key)), 0
        try:
            async with aclosing(regrouped(chunks, PIECE_BYTES)) as pieces:
                async for piece in pieces:
                    await self._written(partial.write, piece)
                    size += len(piece)
            await self._written(partial.publish)
        except BaseException:
            await asyncio.to_thread(partial.discard)
            raise
        self._trouble = ""
        return size

    async def get(self, key: str) -> bytes:
        """The bytes under `key`."""
        return await self._on_disk(_read, self._path(key), key)

    async def stream(self, key: str, start: int = 0) -> AsyncGenerator[bytes, None]:
        """See the port."""
        with await self._on_disk(_open, self._path(key), key) as file:
            await self._on_disk(file.seek, start)
            while piece := await self._on_disk(file.read, PIECE_BYTES):
                yield piece

    async def delete(self, key: str) -> None:
        """Forget `key`; unknown keys are ignored."""
        await self._on_disk(_unlink, self._path(key))

    async def prune(self, older_than: float) -> int:
        """Delete what was last written before `older_than`; returns how many files.

        For what no record names: a crash between two steps leaves such blobs. The caller chooses
        a moment before which every record has been purged.
        """
        return await asyncio.to_thread(_prune, self._folder, older_than)

    async def drop_partials(self) -> int:
        """Delete what a process that died was writing; call it before anything is written."""
        return await asyncio.to_thread(_prune, self._folder, math.inf, f"??/{PARTIAL}*")

    async def _on_disk(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await asyncio.to_thread(work, *args, **kwargs)
        except OSError as error:
            raise unavailable(error, self._folder) from error

    async def _written(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self._on_disk(work, *args, **kwargs)
        except Unavailable as error:
            self._trouble = error.message
            raise

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return self._folder / name[:2] / name[2:]


def _publish(path: Path, data: bytes) -> None:
    partial = PartialFile(path)
    try:
        partial.write(data)
        partial.publish()
    except BaseException:
        partial.discard()
        raise


def _probe(path: Path) -> None:
    """Write as much as the smallest blob has, and leave nothing of it."""
    partial = PartialFile(path)
    try:
        partial.write(bytes(INLINE_BYTES))
        partial.flush()
    finally:
        partial.discard()


def _open(path: Path, key: str) -> BufferedReader:
    try:
        return path.open("rb")
    except FileNotFoundError as error:
        raise KeyError(key) from error


def _read(path: Path, key: str) -> bytes:
    with _open(path, key) as file:
        return file.read()


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


def _prune(folder: Path, older_than: float, pattern: str = "??/*") -> int:
    pruned = 0
    for path in folder.glob(pattern):
        with suppress(OSError):
            if path.stat().st_mtime < older_than:
                path.unlink()
                pruned += 1
    return pruned
