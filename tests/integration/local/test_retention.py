"""Purging: what has been kept long enough goes, blobs first, and nothing else does."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import pytest

from synapse.adapters.local.database import Database
from synapse.adapters.local.job_store import SqliteJobStore
from synapse.adapters.local.retention import SPACE_PAGES
from synapse.domain.job import Job, JobState, Payload
from synapse.ports import Idempotency
from tests.factories import NOW, a_job, a_lease, an_outcome
from tests.fakes import FakeClock

DAY_S = 86_400.0
WEEK_S = 7 * DAY_S


class Bin:
    """Where deleted blobs go."""

    def __init__(self) -> None:
        self.keys: list[str] = []

    async def __call__(self, keys: Sequence[str]) -> None:
        self.keys += keys


async def ended(store: SqliteJobStore, **changes: object) -> Job:
    job = a_job(**{"deadline_at": NOW + 60, **changes})
    await store.create(job)
    await store.close(job.id, JobState.CANCELLED, None, NOW + 1)
    return job


def counts(connection: sqlite3.Connection) -> tuple[int, int]:
    jobs, keys = (
        connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        for table in ("jobs", "idempotency")
    )
    return jobs, keys


async def test_jobs_past_their_retention_go_and_others_stay(
    store: SqliteJobStore, clock: FakeClock
) -> None:
    old = await ended(store)
    clock.advance(WEEK_S + 59)
    assert await store.purge(Bin()) == 0
    recent = await ended(store, deadline_at=NOW + 61)
    clock.advance(1)

    assert await store.purge(Bin()) == 1

    assert await store.get(old.id) is None
    assert await store.get(recent.id) is not None


async def test_blobs_are_named_to_be_deleted(store: SqliteJobStore, clock: FakeClock) -> None:
    job = a_job(deadline_at=NOW + 60, payload=Payload(blob_key="in"))
    await store.create(job)
    await store.claim([job.id], a_lease(), NOW)
    await store.settle(an_outcome(job.id, result=Payload(blob_key="out")), "batch-1", NOW)
    clock.advance(WEEK_S + 60)
    deleted = Bin()

    await store.purge(deleted)

    assert deleted.keys == ["in", "out"]


async def test_records_stay_if_their_blobs_could_not_be_deleted(
    store: SqliteJobStore, database: Database, clock: FakeClock
) -> None:
    await ended(store, payload=Payload(blob_key="in"))
    clock.advance(WEEK_S + 60)

    async def fail(keys: Sequence[str]) -> None:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        await store.purge(fail)

    assert await database.read(counts) == (1, 0)
    assert await store.purge(Bin()) == 1


async def test_open_jobs_are_never_purged(
    store: SqliteJobStore, database: Database, clock: FakeClock
) -> None:
    await store.create(a_job(deadline_at=NOW + 60))
    clock.advance(10 * WEEK_S)

    assert await store.purge(Bin()) == 0
    assert await database.read(counts) == (1, 0)


async def test_keys_go_with_their_jobs_unless_a_newer_job_has_taken_them(
    store: SqliteJobStore, database: Database, clock: FakeClock
) -> None:
    for number, key in enumerate(("kept", "gone")):
        job = a_job(deadline_at=NOW + 60 + number)
        await store.create(job, Idempotency(key, "first"))
        await store.close(job.id, JobState.CANCELLED, None, NOW)
    now = clock.advance(WEEK_S + 61)
    newer = a_job(created_at=now)
    await store.create(newer, Idempotency("kept", "second"))

    assert await store.purge(Bin()) == 2

    assert await database.read(counts) == (1, 1)
    assert not (await store.create(a_job(), Idempotency("kept", "second"))).is_new


async def test_many_jobs_are_purged_and_their_space_is_given_back(
    store: SqliteJobStore, database: Database, clock: FakeClock
) -> None:
    jobs = [a_job(deadline_at=NOW + 60, payload=Payload(inline="x" * 40_000)) for _ in range(1200)]
    await store.create_many(jobs)
    await store.claim([job.id for job in jobs], a_lease(), NOW)
    for job in jobs:
        await store.close(job.id, JobState.CANCELLED, None, NOW)
    before = await database.read(pages)
    clock.advance(WEEK_S + 60)

    assert await store.purge(Bin()) == 1200

    assert before > 6 * SPACE_PAGES
    assert await database.read(pages) < 1.2 * SPACE_PAGES
    assert await store.get(jobs[0].id) is None


async def test_space_that_no_job_has_left_is_given_back_too(
    store: SqliteJobStore, database: Database
) -> None:
    def fill(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE others (text)")
        connection.executemany("INSERT INTO others VALUES (?)", [("x" * 4_000_000,)] * 5)

    await database.write(fill)
    await database.write(lambda connection: connection.execute("DROP TABLE others"))
    before = await database.read(pages)

    assert await store.purge(Bin()) == 0

    assert before > 2 * SPACE_PAGES
    assert await database.read(pages) < 1.2 * SPACE_PAGES


def pages(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA page_count").fetchone()[0])
