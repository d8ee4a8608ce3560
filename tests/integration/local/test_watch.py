"""Waiting for the end of a job: woken at the end, by the thousand, with nothing left behind."""

from __future__ import annotations

import asyncio

import pytest

from synapse.adapters.local.database import Database
from synapse.adapters.local.job_store import SqliteJobStore
from synapse.domain.job import JobId, JobState
from tests.factories import NOW, a_job
from tests.integration.local.disk import stalled
from tests.patience import PATIENCE_S


def watchers(store: SqliteJobStore) -> int:
    return len(store._watchers)


async def test_thousands_of_watchers_are_woken_by_the_ends_of_their_jobs(
    store: SqliteJobStore,
) -> None:
    jobs = [a_job() for _ in range(1000)]
    await store.create_many(jobs)
    watching = [asyncio.create_task(store.watch(job.id, 60)) for job in jobs for _ in range(3)]
    await asyncio.sleep(0)
    assert watchers(store) == 3000

    await asyncio.gather(*(store.close(job.id, JobState.CANCELLED, None, NOW) for job in jobs))

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*watching)
    assert watchers(store) == 0


async def test_a_cancelled_watcher_leaves_nothing_behind(store: SqliteJobStore) -> None:
    job = a_job()
    await store.create(job)
    watching = asyncio.create_task(store.watch(job.id, 60))
    await asyncio.sleep(0)

    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching

    assert watchers(store) == 0


async def test_a_watcher_that_has_waited_long_enough_leaves_nothing_behind(
    store: SqliteJobStore,
) -> None:
    job = a_job()
    await store.create(job)

    await store.watch(job.id, 0.01)
    await store.watch(job.id, 0)

    assert watchers(store) == 0


async def test_watching_a_job_that_is_not_there_returns_at_once(store: SqliteJobStore) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await store.watch(JobId("no-such-job"), 60)

    assert watchers(store) == 0


async def test_watchers_are_woken_only_when_the_end_is_on_the_disk(
    store: SqliteJobStore, database: Database
) -> None:
    job = a_job()
    await store.create(job)
    watching = asyncio.create_task(store.watch(job.id, 60))
    async with stalled(database):
        closing = asyncio.create_task(store.close(job.id, JobState.CANCELLED, None, NOW))
        await asyncio.sleep(0.01)
        assert not watching.done()
    await closing

    async with asyncio.timeout(PATIENCE_S):
        await watching
