"""Where models come from, whatever it is: what is asked of a store, and how it may fail."""

from pathlib import Path
from typing import Protocol

from synapse_worker.cache.config import TransferConfig
from synapse_worker.errors import WorkerError


class Missing(WorkerError):
    """The store has no such file."""


class Unreachable(Exception):
    """The store cannot be asked just now; trying again may help, after `retry_after_s` at least."""

    def __init__(self, cause: str, retry_after_s: float = 0.0) -> None:
        """Keep the wait that the store asked for."""
        self.retry_after_s = retry_after_s
        super().__init__(cause)


class Changed(Exception):
    """The file in the store is another one than before."""


class Stream(Protocol):
    """The bytes of one range, in order. `etag` names the file's state, "" where none is known."""

    etag: str

    def readinto(self, buffer: memoryview) -> int:
        """Wait for bytes and fill the buffer as far as they go; 0 at the end.

        Raises:
            Unreachable: the connection broke.
        """


class Connection(Protocol):
    """One way to the store, for one thread at a time; only `abort` may come from another."""

    def open(self, path: str, start: int, length: int, etag: str) -> Stream:
        """Ask for a range (`length` > 0) of a file, in the state `etag` unless that is "".

        Not every store can refuse another state: compare the stream's.

        Raises:
            Missing, Changed, Unreachable, WorkerError: the last where trying again cannot help.
        """

    def abort(self) -> None:
        """Make whoever reads from it fail at once, as far as that can be done."""

    def close(self) -> None:
        """Let go of it; it may be opened again."""


class Store(Protocol):
    """A folder of models. Its methods block, and may be called from several threads."""

    def read(self, path: str) -> bytes:
        """A small file whole.

        Raises:
            Missing, Unreachable, WorkerError: the last where trying again cannot help.
        """

    def connect(self) -> Connection:
        """A connection of the caller's own; nothing is sent yet."""


def open_store(source: str, config: TransferConfig) -> Store:
    """The store at `s3://bucket/prefix`, at an http(s) address, or in a folder.

    Raises:
        WorkerError: it is none of these, or what it needs is not installed.
    """
    scheme, separator, rest = source.partition("://")
    if separator and scheme == "s3":
        from synapse_worker.cache.s3_store import S3Store

        return S3Store.at(rest, config)
    if separator and scheme in ("http", "https"):
        from synapse_worker.cache.http_store import HttpStore

        return HttpStore(source, config)
    if separator and scheme != "file":
        raise WorkerError(f"There is no model store of the kind {scheme}://", "Use s3:// or https:")
    from synapse_worker.cache.folder_store import FolderStore

    return FolderStore(Path(rest if separator else source))
