"""A disk that is slow, or full, when a test wants it so."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from synapse.adapters.local.database import Database
from tests.patience import PATIENCE_S

BIG = "x" * 20_000
"""Does not fit into pages that the database has already."""


@asynccontextmanager
async def stalled(database: Database) -> AsyncIterator[None]:
    """Within, nothing reaches the disk."""
    arrived, release = threading.Event(), threading.Event()

    def stall(connection: sqlite3.Connection) -> None:
        arrived.set()
        release.wait(PATIENCE_S)

    stalling = asyncio.create_task(database.write(stall))
    await asyncio.to_thread(arrived.wait, 30)
    try:
        yield
    finally:
        release.set()
        await stalling


class Flush:
    """A commit that waits for `end`, and fails with `error` if there is one."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.begun, self.end = threading.Event(), threading.Event()
        self.error: sqlite3.Error | None = None
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        if sql == "COMMIT":
            self.begun.set()
            self.end.wait(PATIENCE_S)
            if self.error is not None:
                raise self.error
        return self._connection.execute(sql, *parameters)


@asynccontextmanager
async def flushing(database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Flush]:
    """Within, statements are done, but their transactions do not end before `Flush.end` is set."""
    with monkeypatch.context() as patch:
        flush = Flush(database._connection)
        patch.setattr(database, "_connection", flush)
        try:
            yield flush
        finally:
            flush.end.set()


@asynccontextmanager
async def full(database: Database) -> AsyncIterator[None]:
    """Within, the database cannot grow: SQLite itself says that the disk is full."""
    await _set_max_pages(database, 1)  # less than there are means: as many as there are
    try:
        yield
    finally:
        await _set_max_pages(database, 2**30)


async def _set_max_pages(database: Database, pages: int) -> None:
    def limit(connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA max_page_count = {pages}").fetchone()

    await database.write(limit)
