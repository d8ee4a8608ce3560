"""What went wrong with the disk, in a line that says how to mend it."""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from synapse.domain.errors import Unavailable

RETRY_AFTER_S = 10


class StorageError(Exception):
    """The data folder cannot be used; the message is one line: the cause and the remedy."""


_SQLITE_CAUSES = {
    sqlite3.SQLITE_FULL: "the disk is full: free some space",
    sqlite3.SQLITE_READONLY: "it is read-only: make the file, its -wal and -shm beside it and "
    "their folder writable",
    sqlite3.SQLITE_PERM: "access is denied: check the owner and the permissions",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened: check that the folder exists and is writable",
    sqlite3.SQLITE_BUSY: "another program has locked it: close that program",
    sqlite3.SQLITE_LOCKED: "another program has locked it: close that program",
    sqlite3.SQLITE_CORRUPT: "it is damaged: move it away with its -wal and -shm to start anew, "
    "or put a backup in its place",
    sqlite3.SQLITE_NOTADB: "it is not a database: move the file away, or choose another folder",
    sqlite3.SQLITE_IOERR: "reading or writing failed: check the disk and its free space",
}

_OS_CAUSES = {
    errno.ENOSPC: _SQLITE_CAUSES[sqlite3.SQLITE_FULL],
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EROFS: _SQLITE_CAUSES[sqlite3.SQLITE_READONLY],
    errno.EACCES: _SQLITE_CAUSES[sqlite3.SQLITE_PERM],
    errno.EPERM: _SQLITE_CAUSES[sqlite3.SQLITE_PERM],
    errno.ENOTDIR: "a part of the path is a file: choose another folder",
    errno.EEXIST: "a part of the path is a file: choose another folder",
}


def explain(error: sqlite3.Error | OSError, path: Path) -> str:
    """One line: what cannot be used, why, and what to do."""
    if isinstance(error, OSError):
        cause = _OS_CAUSES.get(error.errno or 0, error.strerror or str(error))
    else:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        cause = _SQLITE_CAUSES.get(code & 0xFF, str(error))
    return f"{path}: {cause}"


def unavailable(error: sqlite3.Error | OSError, path: Path) -> Unavailable:
    """The error a caller gets; it names the place on disk by its last part only."""
    return Unavailable(f"storage: {explain(error, Path(path.name))}", retry_after_s=RETRY_AFTER_S)
