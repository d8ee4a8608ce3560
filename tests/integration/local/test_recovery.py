"""What a new process makes of the records that the last one left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from synapse.adapters.local.database import Database
from synapse.adapters.local.job_store import SqliteJobStore
from synapse.adapters.local.recovery import Recovered
from synapse.domain.job import Job, JobState
from synapse.domain.sweep import SweepPolicy
from tests.factories import NOW, a_job, a_lease, an_outcome
from tests.fakes import FakeClock

LATER = NOW + 30
POLICY = SweepPolicy(max_losses=3)
Restart = Callable[[], Awaitable[SqliteJobStore]]


@asynccontextmanager
async def a_store(path: Path, clock: FakeClock) -> AsyncIterator[SqliteJobStore]:
    database = Database.open(path)
    store = SqliteJobStore(database, clock)
    yield store
    await store.aclose()
    await database.close()


async def waiting(store: SqliteJobStore, page: int = 1000) -> list[Job]:
    return [job async for jobs in store.queued(page) for job in jobs]


async def test_running_jobs_go_back_to_their_queue_as_lost(path: Path, clock: FakeClock) -> None:
    async with a_store(path, clock) as store:
        jobs = [a_job() for _ in range(3)]
        await store.create_many(jobs)
        claimed = await store.claim([job.id for job in jobs[:2]], a_lease(), NOW)

    async with a_store(path, clock) as store:
        assert await store.recover(LATER, POLICY) == Recovered(requeued=2)

        expected = [job.requeued(LATER, lost=True) for job in claimed]
        assert [await store.get(job.id) for job in jobs] == [*expected, jobs[2]]
        assert await waiting(store) == [*expected, jobs[2]]


async def test_a_job_that_was_lost_too_often_is_failed_with_the_cause(
    path: Path, clock: FakeClock
) -> None:
    async with a_store(path, clock) as store:
        job = a_job(losses=2)
        await store.create(job)
        await store.claim([job.id], a_lease(), NOW)

    async with a_store(path, clock) as store:
        assert await store.recover(LATER, POLICY) == Recovered(failed=1)

        failed = await store.get(job.id)
        assert failed is not None and failed.failure is not None
        assert (failed.state, failed.failure.code) == (JobState.FAILED, "worker_lost")
        assert failed.finished_at == LATER


@pytest.mark.parametrize("claimed", [False, True], ids=["queued", "running"])
async def test_a_job_past_its_deadline_is_expired(
    path: Path, clock: FakeClock, claimed: bool
) -> None:
    async with a_store(path, clock) as store:
        job = a_job(deadline_at=LATER)
        await store.create(job)
        if claimed:
            await store.claim([job.id], a_lease(), NOW)

    async with a_store(path, clock) as store:
        assert await store.recover(LATER, POLICY) == Recovered(expired=1)

        expired = await store.get(job.id)
        assert expired is not None and expired.failure is not None
        assert (expired.state, expired.failure.code) == (JobState.EXPIRED, "deadline_exceeded")
        assert await waiting(store) == []


async def test_ended_jobs_are_left_alone(path: Path, clock: FakeClock) -> None:
    async with a_store(path, clock) as store:
        job = a_job(deadline_at=NOW + 1)
        await store.create(job)
        await store.claim([job.id], a_lease(), NOW)
        ended = await store.settle(an_outcome(job.id), "batch-1", NOW)

    async with a_store(path, clock) as store:
        assert await store.recover(LATER, POLICY) == Recovered()
        assert await store.get(job.id) == ended


async def test_an_orderly_stop_gives_running_jobs_back_without_a_loss(
    path: Path, clock: FakeClock
) -> None:
    async with a_store(path, clock) as store:
        job = a_job()
        await store.create(job)
        [claimed] = await store.claim([job.id], a_lease(), NOW)
        assert await store.release(NOW + 1) == 1
        assert await store.get(job.id) == claimed.requeued(NOW + 1, lost=False)

    async with a_store(path, clock) as store:
        assert await store.recover(LATER, POLICY) == Recovered()
        assert await waiting(store) == [claimed.requeued(NOW + 1, lost=False)]


async def test_waiting_jobs_come_in_pages_in_the_order_of_their_acceptance(
    path: Path, clock: FakeClock
) -> None:
    async with a_store(path, clock) as store:
        jobs = [a_job() for _ in range(25)]
        for job in jobs:
            await store.create(job)
        await store.close(jobs[7].id, JobState.CANCELLED, None, NOW)
        await store.requeue(jobs[3], NOW + 9, lost=False)

    async with a_store(path, clock) as store:
        pages = [page async for page in store.queued(10)]

    assert [len(page) for page in pages] == [10, 10, 4]
    assert [job.id for page in pages for job in page] == [
        job.id for job in jobs if job is not jobs[7]
    ]


async def test_a_job_that_ends_while_the_pages_are_read_is_left_out(
    path: Path, clock: FakeClock
) -> None:
    async with a_store(path, clock) as store:
        jobs = [a_job() for _ in range(4)]
        await store.create_many(jobs)
        pages = store.queued(2)
        await anext(pages)

        await store.close(jobs[2].id, JobState.CANCELLED, None, NOW)

        assert await anext(pages) == [jobs[3]]


async def test_many_running_jobs_are_recovered_page_by_page(path: Path, clock: FakeClock) -> None:
    async with a_store(path, clock) as store:
        jobs = [a_job() for _ in range(1300)]
        await store.create_many(jobs)
        await store.claim([job.id for job in jobs], a_lease(), NOW)

    async with a_store(path, clock) as store:
        assert await store.recover(LATER, POLICY) == Recovered(requeued=1300)
        assert [job.id for job in await waiting(store)] == [job.id for job in jobs]
