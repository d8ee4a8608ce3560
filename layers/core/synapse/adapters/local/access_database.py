"""The SQLite file of who may call (`access.db`): several processes use it at once.

The server reads it for every request, and the `synapse` command writes to it meanwhile. It is
small and always in memory, so that reading takes microseconds and is done on the event loop: a
key that was revoked by anybody opens nothing from then on. Writing waits for the disk, and is done
in a thread.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from synapse.adapters.local.failures import StorageError, explain, unavailable
from synapse.adapters.local.sqlite_file import Steps, migrate, transact

T = TypeVar("T")

APPLICATION_ID = 0x53594E42
"""Marks the file as ours ("SYNB")."""

WRITE_TIMEOUT_S = 5.0
"""How long a writer waits for another process's transaction."""

READ_TIMEOUT_S = 0.05
"""How long a reader waits, and the event loop with it: in WAL mode nothing makes it wait but the
recovery of a log that a killed process has left."""

# `doc` is the record as JSON; the other columns repeat what is searched by.
_FIRST = (
    """
    CREATE TABLE keys (
        id TEXT PRIMARY KEY,
        tenant TEXT NOT NULL,
        revision INTEGER NOT NULL,
        doc TEXT NOT NULL
    ) WITHOUT ROWID
    """,
    "CREATE INDEX keys_by_tenant ON keys (tenant, id)",
    "CREATE TABLE tenants (name TEXT PRIMARY KEY, doc TEXT NOT NULL) WITHOUT ROWID",
)

# Where tenants are told of what ends, with the secrets that sign: to be readable, not hashed.
_WEBHOOKS = (
    """
    CREATE TABLE webhooks (
        tenant TEXT NOT NULL,
        id TEXT NOT NULL,
        revision INTEGER NOT NULL,
        doc TEXT NOT NULL,
        PRIMARY KEY (tenant, id)
    ) WITHOUT ROWID
    """,
)

# Who logs in with a password.
_USERS = (
    """
    CREATE TABLE users (
        name TEXT PRIMARY KEY,
        revision INTEGER NOT NULL,
        doc TEXT NOT NULL
    ) WITHOUT ROWID
    """,
)

MIGRATIONS: Steps = (_FIRST, _WEBHOOKS, _USERS)
"""A released step is never edited."""


class AccessDatabase:
    """An open access.db; use `AccessDatabase.open`, and close it at the end."""

    def __init__(self, path: Path, reader: sqlite3.Connection, writer: sqlite3.Connection) -> None:
        """Made by `open`."""
        self._path = path
        self._reader = reader
        self._writer = writer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="synapse-access")

    @classmethod
    def open(cls, path: Path) -> AccessDatabase:
        """Open the database of `path`, making it and its folder if need be.

        Raises:
            StorageError: it cannot be used; the message says why and what to do.
        """
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _one_at_a_time(path):
                # What is in it is nobody else's business: SQLite's other files take its mode.
                os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
                with closing(_connect(path, WRITE_TIMEOUT_S)) as connection:
                    connection.execute("PRAGMA journal_mode = WAL")
                    migrate(connection, path, APPLICATION_ID, MIGRATIONS)
            return cls(path, _connect(path, READ_TIMEOUT_S), _connect(path, WRITE_TIMEOUT_S))
        except (OSError, sqlite3.Error) as error:
            raise StorageError(explain(error, path)) from error

    def rows(self, query: str, values: Sequence[object] = ()) -> list[Any]:
        """The rows of a query, as all processes have left them.

        Raises:
            Unavailable: the database cannot be read at present.
        """
        try:
            return self._reader.execute(query, values).fetchall()
        except sqlite3.Error as error:
            raise unavailable(error, self._path) from error

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction of its own; its effects are on disk when this returns.

        Raises:
            Unavailable: the database cannot be written at present; nothing was changed.
            IntegrityError: sqlite3's, of what a table does not admit.
        """
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._thread, partial(transact, self._writer, work))
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise unavailable(error, self._path) from error

    async def close(self) -> None:
        """Finish what was begun, and close the file."""
        await asyncio.to_thread(self._thread.shutdown)
        self._reader.close()
        self._writer.close()


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Only one process makes the file: SQLite's own locks do not cover the change to WAL mode."""
    with path.with_name(path.name + ".lock").open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=timeout_s, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA synchronous = FULL")
    return connection
