"""The records of file batches in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial

from synapse.adapters.file_batch_records import file_batch_from_json, file_batch_to_json
from synapse.adapters.local.database import Database
from synapse.domain.file_batch import RETENTION_S, FileBatch, FileBatchId
from synapse.ports import Clock


class SqliteFileBatchStore:
    """A row a batch. Ids begin with their time, so they are the order of a list."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, batch: FileBatch) -> None:
        """See the port."""
        try:
            await self._database.write(partial(_insert, batch=batch))
        except sqlite3.IntegrityError as error:
            raise ValueError(f"there is a batch {batch.id} already") from error

    async def get(self, tenant: str, batch_id: FileBatchId) -> FileBatch | None:
        """See the port."""
        rows = await self._select("tenant = ? AND id = ?", (tenant, batch_id))
        return rows[0] if rows else None

    async def save(self, batch: FileBatch) -> bool:
        """See the port."""
        return await self._database.write(partial(_update, batch=batch))

    async def page(self, tenant: str, after: FileBatchId | None, limit: int) -> Sequence[FileBatch]:
        """See the port."""
        where = "tenant = ? AND (? IS NULL OR id < ?) ORDER BY id DESC"
        return await self._select(f"{where} LIMIT {limit:d}", (tenant, after, after))

    async def open(self) -> Sequence[FileBatch]:
        """See the port."""
        return await self._select("is_open ORDER BY id", ())

    async def purge(self) -> int:
        """Forget batches whose retention has passed; returns how many."""
        due_before = self._clock() - RETENTION_S
        return await self._database.write(partial(_delete, due_before=due_before))

    async def _select(self, where: str, values: Sequence[str | None]) -> list[FileBatch]:
        query = f"SELECT doc FROM file_batches WHERE {where}"
        rows = await self._database.read(lambda db: db.execute(query, values).fetchall())
        return [file_batch_from_json(doc) for (doc,) in rows]


def _insert(connection: sqlite3.Connection, batch: FileBatch) -> None:
    connection.execute(
        "INSERT INTO file_batches (id, tenant, expires_at, is_open, revision, doc)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (batch.id, batch.tenant, batch.expires_at, *_changing(batch)),
    )


def _update(connection: sqlite3.Connection, batch: FileBatch) -> bool:
    done = connection.execute(
        "UPDATE file_batches SET is_open = ?, revision = ?, doc = ? WHERE id = ? AND revision = ?",
        (*_changing(batch), batch.id, batch.revision - 1),
    )
    return done.rowcount == 1


def _changing(batch: FileBatch) -> tuple[bool, int, str]:
    return not batch.status.is_final, batch.revision, file_batch_to_json(batch)


def _delete(connection: sqlite3.Connection, due_before: float) -> int:
    return connection.execute(
        "DELETE FROM file_batches WHERE expires_at <= ? AND NOT is_open", (due_before,)
    ).rowcount
