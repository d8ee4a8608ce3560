"""A store in a folder: another disk, a network file system, or what a test made."""

import os
from pathlib import Path

from synapse_worker.cache.stores import Changed, Missing, Unreachable


class FolderStore:
    """Models below `root`."""

    def __init__(self, root: Path) -> None:
        """It need not exist yet."""
        self._root = root

    def read(self, path: str) -> bytes:
        """A small file whole."""
        try:
            return (self._root / path).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(f"There is no {self._root / path}") from None
        except OSError as error:
            raise Unreachable(f"{self._root / path}: {error.strerror}") from error

    def connect(self) -> "FolderConnection":
        """A reader of the caller's own."""
        return FolderConnection(self._root)


class FolderConnection:
    """Reads ranges of files; it is its own stream."""

    def __init__(self, root: Path) -> None:
        """Nothing is opened yet."""
        self._root = root
        self._descriptor = -1
        self._offset = self._end = 0
        self.etag = ""

    def open(self, path: str, start: int, length: int, etag: str) -> "FolderConnection":
        """The range as a stream; the state of a file is its identity, size and time of change."""
        self.close()
        try:
            self._descriptor = os.open(self._root / path, os.O_RDONLY | os.O_CLOEXEC)
            found = os.fstat(self._descriptor)
        except (FileNotFoundError, NotADirectoryError):
            raise Missing(f"There is no {self._root / path}") from None
        except OSError as error:
            raise Unreachable(f"{self._root / path}: {error.strerror}") from error
        self.etag = f"{found.st_ino}-{found.st_size}-{found.st_mtime_ns}"
        if etag and etag != self.etag:
            raise Changed(f"{self._root / path} has changed")
        self._offset, self._end = start, start + length
        return self

    def readinto(self, buffer: memoryview) -> int:
        """The next bytes of the range."""
        wanted = buffer[: self._end - self._offset]
        try:
            count = os.preadv(self._descriptor, [wanted], self._offset)
        except OSError as error:
            raise Unreachable(f"{self._root}: {error.strerror}") from error
        self._offset += count
        return count

    def abort(self) -> None:
        """Reading a file cannot be broken off."""

    def close(self) -> None:
        """Close the file it reads."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
