"""Jobs as rows, and the statements that read and write many of them at once."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from synapse.adapters.records import job_from_record, job_to_record
from synapse.domain.job import Job, JobId

CHUNK = 64
"""Rows a statement at most; there are that many variants of each, compiled once and kept."""

SELECT_JOB = "SELECT jobs.payload, jobs.result, jobs.doc FROM jobs"


class JobRow(NamedTuple):
    """The columns of `jobs`, less `n`."""

    id: str
    state: str
    due_at: float | None
    result: str | None
    doc: str
    payload: str | None
    deadline_at: float
    untold: bool


class KeyRow(NamedTuple):
    """An idempotency key, and the job that it made."""

    tenant: str
    key: str
    fingerprint: str
    job_id: str


def row_of(job: Job) -> JobRow:
    """The row of a job.

    Raises:
        UnicodeEncodeError: a text of it is not valid Unicode (a lone surrogate).
    """
    record = job_to_record(job)
    payload, result = record.pop("payload", None), record.pop("result", None)
    for text in (payload, result):
        if text is not None and not text.isascii():
            text.encode()
    return JobRow(
        job.id,
        job.state.value,
        job.due_at,
        result,
        json.dumps(record, separators=(",", ":")),
        payload,
        job.deadline_at,
        job.is_told,
    )


def job_of(payload: str | None, result: str | None, doc: str) -> Job:
    """The job of a row that `SELECT_JOB` gave."""
    record = json.loads(doc)
    record["payload"], record["result"] = payload, result
    return job_from_record(record)


def insert_jobs(connection: sqlite3.Connection, rows: Sequence[JobRow]) -> None:
    """Add new jobs.

    Raises:
        sqlite3.IntegrityError: one of them exists.
    """
    for part in _chunks(rows):
        values = ",".join(["(?,?,?,?,?,?,?,?)"] * len(part))
        connection.execute(
            "INSERT INTO jobs (id, state, due_at, result, doc, payload, deadline_at,"
            " untold)"
            f" VALUES {values}",
            [value for row in part for value in row],
        )


def update_jobs(connection: sqlite3.Connection, rows: Sequence[JobRow]) -> None:
    """Write what has become of jobs; their payload never changes, and what was told stays told."""
    for part in _chunks(rows):
        values = ",".join(["(?,?,?,?,?,?)"] * len(part))
        connection.execute(
            f"WITH new (id, state, due_at, result, doc, untold) AS (VALUES {values})"
            " UPDATE jobs SET state = new.state, due_at = new.due_at,"
            " result = new.result, doc = new.doc, untold = jobs.untold AND new.untold"
            " FROM new WHERE jobs.id = new.id",
            [value for row in part for value in (*row[:5], row.untold)],
        )


def insert_keys(connection: sqlite3.Connection, rows: Iterable[KeyRow]) -> None:
    """Remember idempotency keys; one whose job is gone is taken over."""
    connection.executemany(
        "INSERT OR REPLACE INTO idempotency (tenant, key, fingerprint, job_id) VALUES (?,?,?,?)",
        rows,
    )


def select_jobs(connection: sqlite3.Connection, ids: Sequence[JobId]) -> dict[JobId, Job]:
    """Those of the jobs that exist."""
    if len(ids) == 1:
        row = connection.execute(f"{SELECT_JOB} WHERE id = ?", ids).fetchone()
        return {ids[0]: job_of(*row)} if row else {}
    rows = connection.execute(
        f"{SELECT_JOB} JOIN json_each(?) AS wanted ON jobs.id = wanted.value", (json.dumps(ids),)
    )
    jobs = (job_of(*row) for row in rows.fetchall())
    return {job.id: job for job in jobs}


def _chunks(rows: Sequence[JobRow]) -> Iterator[Sequence[JobRow]]:
    for start in range(0, len(rows), CHUNK):
        yield rows[start : start + CHUNK]
