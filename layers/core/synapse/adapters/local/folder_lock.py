"""One process per data folder."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from synapse.adapters.local.failures import StorageError, explain


class FolderLock:
    """An advisory lock that the kernel releases when its process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        """Take the lock.

        Raises:
            StorageError: another process has it, or the file cannot be made.
        """
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise StorageError(explain(error, path)) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(self._file, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(self._file)
            raise StorageError(
                f"{path.parent}: in use by process {holder}: stop it, or choose another folder"
            ) from error
        # The number is for people; on a full disk the lock holds without it.
        with suppress(OSError):
            os.ftruncate(self._file, 0)
            os.write(self._file, f"{os.getpid()}\n".encode())

    def release(self) -> None:
        """Let another process have the folder. The file stays: removing it would be a race."""
        os.close(self._file)
