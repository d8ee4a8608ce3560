"""A SQLite file behind an event loop: one thread writes, a few read, the loop never waits.

A call into SQLite gives up the interpreter lock and then queues for it again, for up to
`sys.getswitchinterval()` while the loop computes. So writers hand over few statements with many
rows (`job_rows`), not many statements: with a busy loop that is ten times faster.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

from synapse.adapters.local import schema
from synapse.adapters.local.failures import StorageError, explain, unavailable
from synapse.adapters.local.folder_lock import FolderLock
from synapse.adapters.local.sqlite_file import migrate, transact
from synapse.domain.errors import Unavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

BUSY_TIMEOUT_S = 2.0
READERS = 2
STATEMENTS = 256
CHECKPOINT_BYTES = 4 * 1024 * 1024
WAL_KEPT_BYTES = 1024 * 1024


@dataclass(slots=True)
class _Task(Generic[T]):
    """Work for the writer, and where its result goes."""

    work: Callable[[], T]
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[T]
    result: T | None = None
    error: BaseException | None = None

    def resolve(self) -> None:
        """Tell the caller, on the loop."""
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]


class Database:
    """An open database; use `Database.open`."""

    def __init__(self, path: Path, lock: FolderLock, connection: sqlite3.Connection) -> None:
        self._path = path
        self._lock = lock
        self._connection = connection
        self._wal = path.with_name(path.name + "-wal")
        self._tasks: SimpleQueue[_Task[Any] | None] = SimpleQueue()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="synapse-reader")
        self._read_connection = threading.local()
        self._connections = [connection]
        self._closed = False
        self._checkpoint_fails = False
        self._trouble = ""
        self._writer = threading.Thread(target=self._write_all, name="synapse-writer", daemon=True)
        self._writer.start()

    @classmethod
    def open(cls, path: Path) -> Database:
        """Open the database of `path`, making it and its folder if need be.

        Raises:
            StorageError: it cannot be used; the message says why and what to do.
        """
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(explain(error, path.parent)) from error
        lock = FolderLock(path.with_name(path.name + ".lock"))
        connection: sqlite3.Connection | None = None
        try:
            _make_private(path)
            connection = _connect(path)
            # Before anything else is written: it cannot be changed later.
            connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("PRAGMA wal_autocheckpoint = 0")
            connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
            migrate(connection, path, schema.APPLICATION_ID, schema.MIGRATIONS)
        except (OSError, sqlite3.Error, StorageError) as error:
            if connection is not None:
                connection.close()
            lock.release()
            if isinstance(error, StorageError):
                raise
            raise StorageError(explain(error, path)) from error
        return cls(path, lock, connection)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in a transaction of its own; its effects are on disk when this returns.

        Transactions run one after the other, in the order of the calls.

        Raises:
            Unavailable: the database cannot be written at present; nothing was changed.
        """
        return await self._in_turn(partial(self._transact, work))

    async def give_back_space(self, pages: int) -> None:
        """Return at most that many free pages to the file system.

        Raises:
            Unavailable: the database cannot be written at present.
        """
        # As a script: elsewhere Python's driver stops after the first page.
        script = f"PRAGMA incremental_vacuum({pages})"
        await self._in_turn(lambda: self._connection.executescript(script))

    def last_trouble(self) -> str:
        """Why the last write failed; empty if it went well."""
        return self._trouble

    async def try_again(self) -> None:
        """Write something if the last write failed: nobody else may come to see that it is over.

        Raises:
            Unavailable: it is not.
        """
        if self._trouble:
            await self.write(_write_nothing_new)
            self._trouble = ""

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`, which only reads, on what has been committed.

        Raises:
            Unavailable: the database cannot be read at present.
        """
        if self._closed:
            raise Unavailable("the server is stopping")
        loop = asyncio.get_running_loop()
        try:
            future = loop.run_in_executor(self._readers, partial(self._read, work))
            return await future
        except sqlite3.Error as error:
            raise unavailable(error, self._path) from error

    async def close(self) -> None:
        """Finish what was handed over, then close the file and let go of the folder."""
        if self._closed:
            return
        self._closed = True
        self._tasks.put(None)
        await asyncio.to_thread(self._writer.join)
        await asyncio.to_thread(self._readers.shutdown)
        for connection in reversed(self._connections):
            with suppress(sqlite3.Error):
                connection.close()
        self._lock.release()

    def hand_over(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """As `write`, but in the queue when this returns: whatever is written later comes after.

        The future may also hold an error of sqlite3's.

        Raises:
            Unavailable: the server is stopping.
        """
        return self._queue(partial(self._transact, work))

    def _queue(self, work: Callable[[], T]) -> asyncio.Future[T]:
        if self._closed:
            raise Unavailable("the server is stopping")
        loop = asyncio.get_running_loop()
        task: _Task[T] = _Task(work, loop, loop.create_future())
        self._tasks.put(task)
        return task.future

    async def _in_turn(self, work: Callable[[], T]) -> T:
        try:
            return await self._queue(work)
        except sqlite3.Error as error:
            if not is_the_database(error):
                raise
            raise unavailable(error, self._path) from error

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        connection: sqlite3.Connection | None = getattr(self._read_connection, "value", None)
        if connection is None:
            connection = _connect(self._path)
            connection.execute("PRAGMA query_only = 1")
            self._connections.append(connection)
            self._read_connection.value = connection
        return work(connection)

    def _write_all(self) -> None:
        while (task := self._tasks.get()) is not None:
            before = self._connection.total_changes
            try:
                task.result = task.work()
            except BaseException as error:  # noqa: BLE001 - it is the caller's to handle
                task.error = error
            self._note(task.error, self._connection.total_changes - before)
            # The loop is closed if the process is being torn down without `close`.
            with suppress(RuntimeError):
                task.loop.call_soon_threadsafe(task.resolve)
            del task
            self._checkpoint()

    def _note(self, error: BaseException | None, changes: int) -> None:
        if error is None and changes:
            self._trouble = ""
        elif isinstance(error, sqlite3.Error) and is_the_database(error):
            self._trouble = unavailable(error, self._path).message

    def _transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return transact(self._connection, work)

    def _checkpoint(self) -> None:
        """Move a long log into the database, after the callers have their answers."""
        try:
            if self._wal.stat().st_size > CHECKPOINT_BYTES:
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except (sqlite3.Error, OSError) as error:
            if not self._checkpoint_fails:
                logger.warning("checkpoints are put off: %s", error)
            self._checkpoint_fails = True
        else:
            self._checkpoint_fails = False


def is_the_database(error: Exception) -> bool:
    """Whether the file or the disk is at fault, and not what was to be written."""
    rows = (sqlite3.IntegrityError, sqlite3.DataError, sqlite3.ProgrammingError)
    return isinstance(error, sqlite3.Error) and not isinstance(error, rows)


def _write_nothing_new(connection: sqlite3.Connection) -> None:
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    connection.execute(f"PRAGMA user_version = {version}")


def _make_private(path: Path) -> None:
    """Make a new file its owner's alone, in a folder that may be everybody's: it holds prompts.

    SQLite's other files take its mode. One that is there keeps what its owner has given it.
    """
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(
        path,
        timeout=BUSY_TIMEOUT_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENTS,
    )
