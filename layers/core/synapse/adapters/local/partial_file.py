"""A file that is there as a whole or not at all."""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import suppress
from io import FileIO
from pathlib import Path

PARTIAL = ".partial-"
"""How the name of an unfinished file begins."""


class PartialFile:
    """Bytes on their way to `path`, beside it under another name until `publish`.

    For threads: a writer whose caller has been cancelled may still be at work when the file is
    discarded.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._partial: Path | None = None
        self._file: FileIO | None = None
        self._is_over = False

    def write(self, data: bytes) -> None:
        """Append `data`."""
        rest = memoryview(data)
        with self._lock:
            file = self._opened()
            while rest:
                rest = rest[file.write(rest) :]

    def flush(self) -> None:
        """Have on disk what has been written."""
        with self._lock:
            os.fsync(self._opened().fileno())

    def publish(self) -> None:
        """Let the file take its place; it is on disk when this returns."""
        self.flush()
        with self._lock:
            self._opened().close()
            assert self._partial is not None
            self._partial.replace(self._path)
            self._is_over = True
        # The new name is on disk only when its folder is.
        _sync_folder(self._path.parent)

    def discard(self) -> None:
        """Remove what has been written, unless it was published."""
        with self._lock, suppress(OSError):
            self._is_over = True
            if self._file is not None and self._partial is not None:
                self._file.close()
                self._partial.unlink(missing_ok=True)

    def _opened(self) -> FileIO:
        if self._is_over:
            raise ValueError("the file was published or discarded")
        if self._file is None:
            folder = self._path.parent
            if not folder.is_dir():
                folder.mkdir(mode=0o700, exist_ok=True)
                _sync_folder(folder.parent)
            descriptor, name = tempfile.mkstemp(prefix=PARTIAL, dir=folder)
            self._partial, self._file = Path(name), FileIO(descriptor, "wb")
        return self._file


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
