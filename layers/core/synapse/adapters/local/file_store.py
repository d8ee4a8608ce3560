"""Records of files and uploads in SQLite."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import replace

from synapse.adapters.file_records import (
    file_from_record,
    file_to_record,
    part_from_record,
    part_to_record,
    upload_from_record,
    upload_to_record,
)
from synapse.adapters.local.database import Database
from synapse.domain.file import FileId, StoredFile
from synapse.domain.upload import Upload, UploadId, UploadPart, UploadState
from synapse.ports import Clock, FileQuery

PURGE_PAGE = 500


class SqliteFileStore:
    """The FileStore of the one-machine target."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def create(self, file: StoredFile) -> bool:
        """See the port."""
        row = (
            file.id,
            file.tenant,
            file.purpose.value,
            file.expires_at,
            _doc(file_to_record(file)),
        )

        def insert(connection: sqlite3.Connection) -> bool:
            statement = "INSERT OR IGNORE INTO files VALUES (?,?,?,?,?)"
            return connection.execute(statement, row).rowcount == 1

        return await self._database.write(insert)

    async def get(self, tenant: str, file_id: FileId) -> StoredFile | None:
        """See the port."""

        def select(connection: sqlite3.Connection) -> StoredFile | None:
            return _file(connection, tenant, file_id, self._clock())

        return await self._database.read(select)

    async def page(self, tenant: str, query: FileQuery) -> Sequence[StoredFile]:
        """See the port."""
        order, direction = ("<", "DESC") if query.newest_first else (">", "ASC")
        conditions, values = ["tenant = ?", "expires_at > ?"], [tenant, self._clock()]
        if query.after is not None:
            conditions.append(f"id {order} ?")
            values.append(query.after)
        if query.purpose is not None:
            conditions.append("purpose = ?")
            values.append(query.purpose.value)
        where = " AND ".join(conditions)
        statement = f"SELECT doc FROM files WHERE {where} ORDER BY id {direction} LIMIT ?"

        def select(connection: sqlite3.Connection) -> list[StoredFile]:
            rows = connection.execute(statement, (*values, query.limit)).fetchall()
            return [file_from_record(json.loads(doc)) for (doc,) in rows]

        return await self._database.read(select)

    async def delete(self, tenant: str, file_id: FileId) -> StoredFile | None:
        """See the port."""

        def delete(connection: sqlite3.Connection) -> StoredFile | None:
            file = _file(connection, tenant, file_id, self._clock())
            if file is not None:
                connection.execute("DELETE FROM files WHERE id = ?", (file_id,))
            return file

        return await self._database.write(delete)

    async def expired(self) -> Sequence[StoredFile]:
        """Some of the files of all tenants that are past their time."""

        def select(connection: sqlite3.Connection) -> list[StoredFile]:
            rows = connection.execute(
                "SELECT doc FROM files WHERE expires_at <= ? LIMIT ?", (self._clock(), PURGE_PAGE)
            ).fetchall()
            return [file_from_record(json.loads(doc)) for (doc,) in rows]

        return await self._database.read(select)

    async def forget(self, files: Sequence[StoredFile]) -> None:
        """Drop the records of expired files, whose blobs have been deleted."""
        await self._database.write(
            lambda connection: connection.executemany(
                "DELETE FROM files WHERE id = ?", [(file.id,) for file in files]
            )
        )


class SqliteUploadStore:
    """The UploadStore of the one-machine target."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, upload: Upload) -> None:
        """See the port."""
        row = (upload.id, upload.expires_at, _doc(upload_to_record(upload)))
        await self._database.write(
            lambda connection: connection.execute("INSERT INTO uploads VALUES (?,?,?)", row)
        )

    async def get(self, tenant: str, upload_id: UploadId) -> Upload | None:
        """See the port."""
        upload = await self._database.read(lambda connection: _upload(connection, upload_id))
        return upload if upload is not None and upload.tenant == tenant else None

    async def add_part(self, upload: Upload, part: UploadPart) -> None:
        """See the port."""
        row = (upload.id, part.id, _doc(part_to_record(part)))
        await self._database.write(
            lambda connection: connection.execute("INSERT INTO upload_parts VALUES (?,?,?)", row)
        )

    async def parts(self, upload: Upload) -> Sequence[UploadPart]:
        """See the port."""
        return await self._database.read(lambda connection: _parts(connection, upload.id))

    async def finish(self, upload: Upload, state: UploadState) -> Upload | None:
        """See the port."""

        def update(connection: sqlite3.Connection) -> Upload | None:
            current = _upload(connection, upload.id)
            if current is None or current.state is not UploadState.PENDING:
                return None
            ended = replace(current, state=state)
            row = (_doc(upload_to_record(ended)), upload.id)
            connection.execute("UPDATE uploads SET doc = ? WHERE id = ?", row)
            return ended

        return await self._database.write(update)

    async def expired(self, before: float) -> Sequence[tuple[Upload, Sequence[UploadPart]]]:
        """Some of the uploads of all tenants whose time was over `before`, and their parts."""

        def select(connection: sqlite3.Connection) -> list[tuple[Upload, Sequence[UploadPart]]]:
            rows = connection.execute(
                "SELECT doc FROM uploads WHERE expires_at <= ? LIMIT ?", (before, PURGE_PAGE)
            ).fetchall()
            uploads = [upload_from_record(json.loads(doc)) for (doc,) in rows]
            return [(upload, _parts(connection, upload.id)) for upload in uploads]

        return await self._database.read(select)

    async def forget(self, uploads: Sequence[Upload]) -> None:
        """Drop the records of expired uploads, whose parts have been deleted."""
        ids = [(upload.id,) for upload in uploads]

        def delete(connection: sqlite3.Connection) -> None:
            connection.executemany("DELETE FROM upload_parts WHERE upload_id = ?", ids)
            connection.executemany("DELETE FROM uploads WHERE id = ?", ids)

        await self._database.write(delete)


def _doc(record: dict[str, object]) -> str:
    return json.dumps(record, separators=(",", ":"))


def _file(
    connection: sqlite3.Connection, tenant: str, file_id: FileId, now: float
) -> StoredFile | None:
    row = connection.execute(
        "SELECT doc FROM files WHERE id = ? AND tenant = ? AND expires_at > ?",
        (file_id, tenant, now),
    ).fetchone()
    return file_from_record(json.loads(row[0])) if row else None


def _upload(connection: sqlite3.Connection, upload_id: UploadId) -> Upload | None:
    row = connection.execute("SELECT doc FROM uploads WHERE id = ?", (upload_id,)).fetchone()
    return upload_from_record(json.loads(row[0])) if row else None


def _parts(connection: sqlite3.Connection, upload_id: UploadId) -> list[UploadPart]:
    rows = connection.execute(
        "SELECT doc FROM upload_parts WHERE upload_id = ? ORDER BY id", (upload_id,)
    ).fetchall()
    return [part_from_record(json.loads(doc)) for (doc,) in rows]
