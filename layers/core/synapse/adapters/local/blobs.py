"""Blobs as files of a folder."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from synapse.adapters.local.failures import StorageError, explain, unavailable

PARTIAL = ".partial-"


class FolderBlobStore:
    """A file per key, named by the key's hash: any key is safe, and no folder grows too large."""

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

    async def put(self, key: str, data: bytes) -> None:
        """Store `data` durably under `key`, replacing what was there; readers see old or new."""
        try:
            await asyncio.to_thread(_publish, self._path(key), data)
        except OSError as error:
            raise unavailable(error, self._folder) from error

    async def get(self, key: str) -> bytes:
        """The bytes under `key`."""
        try:
            return await asyncio.to_thread(self._path(key).read_bytes)
        except FileNotFoundError as error:
            raise KeyError(key) from error
        except OSError as error:
            raise unavailable(error, self._folder) from error

    async def delete(self, key: str) -> None:
        """Forget `key`; unknown keys are ignored."""
        try:
            await asyncio.to_thread(self._path(key).unlink, missing_ok=True)
        except OSError as error:
            raise unavailable(error, self._folder) from error

    async def prune(self, older_than: float) -> int:
        """Delete what was last written before `older_than`; returns how many files.

        For what no record names: a crash between two steps leaves such blobs. The caller chooses
        a moment before which every record has been purged.
        """
        return await asyncio.to_thread(_prune, self._folder, older_than)

    def _path(self, key: str) -> Path:
        name = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        return self._folder / name[:2] / name[2:]


def _publish(path: Path, data: bytes) -> None:
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        _sync_folder(path.parent.parent)
    descriptor, partial = tempfile.mkstemp(prefix=PARTIAL, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(partial).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(partial).unlink(missing_ok=True)
        raise
    # The new name is on disk only when its folder is.
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _prune(folder: Path, older_than: float) -> int:
    pruned = 0
    for path in folder.glob("??/*"):
        with suppress(OSError):
            if path.stat().st_mtime < older_than:
                path.unlink()
                pruned += 1
    return pruned
