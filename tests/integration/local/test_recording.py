"""A job is claimed, and may end, while its record is flushed; nothing comes of it if that fails."""

from __future__ import annotations

import asyncio
import sqlite3

import pytest

from synapse.adapters.local.database import Database
from synapse.adapters.local.job_store import SqliteJobStore
from synapse.domain.errors import Unavailable
from synapse.domain.job import Job, JobId, JobState, Payload
from tests.factories import NOW, a_job, a_lease, an_outcome
from tests.fakes import FakeClock
from tests.integration.local.disk import BIG, flushing, full, stalled
from tests.patience import PATIENCE_S

OWNER = "batch-1"
FULL = sqlite3.OperationalError("database or disk is full")


async def on_disk(database: Database, clock: FakeClock, job_id: JobId) -> Job | None:
    """The job as a store finds it that remembers nothing."""
    return await SqliteJobStore(database, clock).get(job_id)


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_job_runs_and_ends_while_its_record_is_flushed(
    store: SqliteJobStore, database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_job()
    async with flushing(database, monkeypatch) as flush:
        async with store.recording(job):
            [running] = await store.claim([job.id], a_lease(OWNER), NOW)
            settling = asyncio.create_task(store.settle(an_outcome(job.id), OWNER, NOW + 1))
            await turns()
            assert await on_disk(database, clock, job.id) is None
            assert await store.get(job.id) == running
            assert not settling.done()
            flush.end.set()
        assert await on_disk(database, clock, job.id) is not None

    ended = await settling
    assert ended is not None and ended == await on_disk(database, clock, job.id)
    assert await store.get(job.id) == ended


async def test_whoever_records_goes_on_when_the_flush_has_ended(
    store: SqliteJobStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, outside = asyncio.Event(), asyncio.Event()

    async def record() -> None:
        async with store.recording(a_job()):
            inside.set()
        outside.set()

    async with flushing(database, monkeypatch) as flush:
        recording = asyncio.create_task(record())
        await inside.wait()
        await asyncio.to_thread(flush.begun.wait, PATIENCE_S)
        await turns()
        assert not outside.is_set()
        flush.end.set()
        await recording


async def test_what_is_claimed_while_it_is_flushed_reaches_the_disk_by_itself(
    store: SqliteJobStore, database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_job()
    async with flushing(database, monkeypatch) as flush, store.recording(job):
        [running] = await store.claim([job.id], a_lease(OWNER), NOW)
        flush.end.set()

    async with asyncio.timeout(PATIENCE_S):
        while await on_disk(database, clock, job.id) != running:
            await asyncio.sleep(0.01)


async def test_an_orderly_stop_gives_back_what_is_being_flushed(
    store: SqliteJobStore, database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_job()
    async with flushing(database, monkeypatch) as flush, store.recording(job):
        await store.claim([job.id], a_lease(OWNER), NOW)
        releasing = asyncio.create_task(store.release(NOW))
        await turns()
        flush.end.set()
        assert await releasing == 1

    kept = await on_disk(database, clock, job.id)
    assert kept is not None and (kept.state, kept.losses) == (JobState.QUEUED, 0)


async def test_nothing_comes_of_a_job_whose_flush_fails(
    store: SqliteJobStore, database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimed, ended = a_job(), a_job()
    async with flushing(database, monkeypatch) as flush:
        flush.error = FULL
        with pytest.raises(Unavailable, match="disk is full"):
            async with store.recording(claimed):
                await store.claim([claimed.id], a_lease(OWNER), NOW)
                flush.end.set()
        flush.end.clear()
        with pytest.raises(Unavailable, match="disk is full"):
            async with store.recording(ended):
                await store.claim([ended.id], a_lease(OWNER), NOW)
                settling = asyncio.create_task(store.settle(an_outcome(ended.id), OWNER, NOW + 1))
                await turns()
                flush.end.set()
        with pytest.raises(Unavailable, match="not be recorded"):
            await settling

    assert await store.due(NOW, 10) == []
    for job in (claimed, ended):
        assert await store.claim([job.id], a_lease(OWNER), NOW + 2) == []
        assert await store.settle(an_outcome(job.id), OWNER, NOW + 2) is None
        assert await store.get(job.id) is None
        assert await on_disk(database, clock, job.id) is None


async def test_a_job_that_does_not_get_so_far_as_to_be_flushed_is_not_run(
    store: SqliteJobStore, database: Database
) -> None:
    job = a_job(payload=Payload(inline=BIG))
    async with full(database):
        with pytest.raises(Unavailable, match="disk is full"):
            async with store.recording(job):
                pytest.fail("it may be claimed")

    assert await store.get(job.id) is None
    async with store.recording(job):
        assert len(await store.claim([job.id], a_lease(OWNER), NOW)) == 1


async def test_a_job_is_recorded_although_its_neighbour_cannot_be(
    store: SqliteJobStore, database: Database, clock: FakeClock
) -> None:
    existing, job = a_job(), a_job()
    await store.create(existing)

    async def record(job: Job) -> list[Job]:
        async with store.recording(job):
            return await store.claim([job.id], a_lease(OWNER), NOW)

    async with stalled(database):
        recording = [asyncio.create_task(record(each)) for each in (a_job(id=existing.id), job)]
        await turns()
    refused, claimed = await asyncio.gather(*recording, return_exceptions=True)

    assert isinstance(refused, ValueError)
    assert claimed == [await store.get(job.id)]
    assert await on_disk(database, clock, existing.id) == existing


async def test_a_job_is_recorded_although_its_caller_has_gone(
    store: SqliteJobStore, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_job()
    inside = asyncio.Event()

    async def record() -> None:
        async with store.recording(job):
            await store.claim([job.id], a_lease(OWNER), NOW)
            inside.set()

    async with flushing(database, monkeypatch) as flush:
        recording = asyncio.create_task(record())
        await inside.wait()
        recording.cancel()
        await turns()
        flush.end.set()

    ended = await store.settle(an_outcome(job.id), OWNER, NOW + 1)
    assert ended is not None and await store.get(job.id) == ended
