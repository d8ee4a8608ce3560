"""Forgetting jobs whose time has passed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from synapse.adapters.local.database import Database
from synapse.adapters.local.job_rows import SELECT_JOB, job_of
from synapse.domain.job import Job, JobId

PAGE = 500
SPACE_PAGES = 2000
"""How much is given back at once; fewer free pages are kept for what comes."""

DeleteBlobs = Callable[[Sequence[str]], Awaitable[None]]


async def purge(database: Database, due_before: float, delete_blobs: DeleteBlobs) -> int:
    """Forget ended jobs whose deadline was before `due_before`: blobs first, then records."""
    purged = 0
    while jobs := await database.read(partial(_select_ended, due_before=due_before)):
        keys = [key for job in jobs for key in _blob_keys(job)]
        if keys:
            await delete_blobs(keys)
        await database.write(partial(_delete, ids=[job.id for job in jobs]))
        purged += len(jobs)
    await _give_back_space(database)
    return purged


async def _give_back_space(database: Database) -> None:
    """Return free pages to the file system, whatever left them; others may write in between."""
    free = await database.read(_free_pages)
    for _ in range(free // SPACE_PAGES):
        await database.give_back_space(SPACE_PAGES)


def _free_pages(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])


def _blob_keys(job: Job) -> list[str]:
    return [part.blob_key for part in (job.payload, job.result) if part and part.blob_key]


def _select_ended(connection: sqlite3.Connection, due_before: float) -> list[Job]:
    rows = connection.execute(
        f"{SELECT_JOB} WHERE deadline_at <= ? AND due_at IS NULL ORDER BY deadline_at LIMIT ?",
        (due_before, PAGE),
    )
    return [job_of(*row) for row in rows.fetchall()]


def _delete(connection: sqlite3.Connection, ids: Sequence[JobId]) -> None:
    wanted = (json.dumps(ids),)
    for table, column in (("idempotency", "job_id"), ("jobs", "id")):
        connection.execute(
            f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))", wanted
        )
