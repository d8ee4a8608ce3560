"""The SQLite store's writes: shared by many callers, durable, and honest when the disk is not."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from synapse.adapters.local.database import Database
from synapse.adapters.local.job_store import SqliteJobStore
from synapse.domain.errors import Unavailable
from synapse.domain.job import Job, JobId, JobState, Payload
from synapse.ports import Idempotency
from tests.factories import NOW, a_job, a_lease, an_outcome
from tests.fakes import FakeClock
from tests.integration.local.disk import BIG, flushing, full, stalled
from tests.patience import PATIENCE_S

OWNER = "batch-1"
T = TypeVar("T")


async def a_running_job(store: SqliteJobStore) -> Job:
    job = a_job()
    await store.create(job)
    [claimed] = await store.claim([job.id], a_lease(OWNER), NOW)
    return claimed


async def on_disk(path: Path, clock: FakeClock, job_id: JobId) -> Job | None:
    """The job as the next process will find it."""
    database = Database.open(path)
    job = await SqliteJobStore(database, clock).get(job_id)
    await database.close()
    return job


async def turns(count: int = 10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_callers_share_transactions(store: SqliteJobStore) -> None:
    await asyncio.gather(*(store.create(a_job()) for _ in range(500)))

    assert store.groups_committed <= 3


async def test_whoever_comes_while_the_disk_is_busy_shares_the_next_transaction(
    store: SqliteJobStore, database: Database
) -> None:
    async with stalled(database):
        first = asyncio.create_task(store.create(a_job()))
        await turns()
        others = [asyncio.create_task(store.create(a_job())) for _ in range(50)]
        await turns()
    await asyncio.gather(first, *others)

    assert store.groups_committed == 2


async def test_a_bad_job_fails_alone(store: SqliteJobStore) -> None:
    existing = a_job()
    await store.create(existing)
    good = [a_job() for _ in range(20)]
    not_unicode = a_job(payload=Payload(inline="\ud800"))
    jobs = [*good[:10], not_unicode, a_job(id=existing.id), *good[10:]]

    answers = await asyncio.gather(*(store.create(job) for job in jobs), return_exceptions=True)

    failed = [
        job for job, answer in zip(jobs, answers, strict=True) if isinstance(answer, Exception)
    ]
    assert failed == jobs[10:12]
    assert all(isinstance(answer, ValueError) for answer in answers[10:12])
    assert [await store.get(job.id) for job in good] == good
    assert await store.get(not_unicode.id) is None


async def test_an_end_is_not_shown_before_it_is_on_the_disk(
    store: SqliteJobStore, database: Database
) -> None:
    job = await a_running_job(store)
    async with stalled(database):
        settling = asyncio.create_task(store.settle(an_outcome(job.id), OWNER, NOW + 1))
        await turns()
        assert await store.get(job.id) == job
        assert not settling.done()

    settled = await settling
    assert settled is not None and await store.get(job.id) == settled


async def test_a_claim_does_not_wait_for_the_disk(
    store: SqliteJobStore, database: Database
) -> None:
    job = a_job()
    await store.create(job)
    async with stalled(database):
        [claimed] = await store.claim([job.id], a_lease(), NOW)

        assert await store.get(job.id) == claimed
        assert await store.requeue(claimed, NOW, lost=True) is not None


@pytest.mark.parametrize("again", ["claimed", "requeued"])
async def test_a_job_whose_end_fails_is_not_passed_over_meanwhile(
    store: SqliteJobStore, database: Database, monkeypatch: pytest.MonkeyPatch, again: str
) -> None:
    job = await a_running_job(store)

    async def move() -> bool:
        if again == "claimed":
            return bool(await store.claim([job.id], a_lease(OWNER), NOW + 1))
        return await store.requeue(job, NOW + 1, lost=False) is not None

    async with flushing(database, monkeypatch) as flush:
        flush.error = sqlite3.OperationalError("database is locked")
        settling = asyncio.create_task(store.settle(an_outcome(job.id), OWNER, NOW + 1))
        await asyncio.to_thread(flush.begun.wait, PATIENCE_S)
        moving = asyncio.create_task(move())
        await turns()
        assert not moving.done()
        flush.end.set()

        with pytest.raises(Unavailable):
            await settling
        flush.error = None
        assert await moving


async def test_a_claim_reaches_the_disk_by_itself(
    store: SqliteJobStore, database: Database, clock: FakeClock
) -> None:
    job = await a_running_job(store)
    reader = SqliteJobStore(database, clock)

    async with asyncio.timeout(PATIENCE_S):
        while await reader.get(job.id) != job:
            await asyncio.sleep(0.01)


async def test_the_loser_of_a_race_hears_of_it_when_the_winner_is_on_the_disk(
    store: SqliteJobStore, database: Database
) -> None:
    job = await a_running_job(store)
    async with stalled(database):
        settling = asyncio.create_task(store.settle(an_outcome(job.id), OWNER, NOW + 1))
        await turns()
        closing = asyncio.create_task(store.close(job.id, JobState.CANCELLED, None, NOW + 1))
        again = asyncio.create_task(store.settle(an_outcome(job.id), OWNER, NOW + 1))
        await turns()
        assert not closing.done() and not again.done()

    assert (await closing, await again) == (None, None)
    assert await settling == await store.get(job.id)


async def test_on_a_full_disk_callers_get_an_error_and_nothing_is_recorded(
    store: SqliteJobStore, database: Database
) -> None:
    jobs = [a_job(payload=Payload(inline=BIG)) for _ in range(30)]
    async with full(database):
        answers = await asyncio.gather(*(store.create(job) for job in jobs), return_exceptions=True)

        assert all(isinstance(answer, Unavailable) for answer in answers)
        assert len({id(answer) for answer in answers}) == len(answers)
        assert "disk is full" in str(answers[0])
    assert [await store.get(job.id) for job in jobs] == [None] * len(jobs)


async def test_work_goes_on_when_there_is_space_again(
    store: SqliteJobStore, database: Database
) -> None:
    job = a_job(payload=Payload(inline=BIG))
    async with full(database):
        with pytest.raises(Unavailable):
            await store.create(job)

    await store.create(job)

    assert await store.get(job.id) == job


async def test_an_end_that_could_not_be_written_leaves_the_job_running(
    store: SqliteJobStore, database: Database
) -> None:
    job = await a_running_job(store)
    outcome = an_outcome(job.id, result=Payload(inline=BIG))
    async with full(database):
        with pytest.raises(Unavailable):
            await store.settle(outcome, OWNER, NOW + 1)
        assert await store.get(job.id) == job

    settled = await store.settle(outcome, OWNER, NOW + 2)

    assert settled is not None and await store.get(job.id) == settled


async def test_a_refusal_is_an_error_if_the_end_that_caused_it_could_not_be_written(
    store: SqliteJobStore, database: Database
) -> None:
    job = await a_running_job(store)
    async with full(database):
        settling = asyncio.create_task(
            store.settle(an_outcome(job.id, result=Payload(inline=BIG)), OWNER, NOW + 1)
        )
        await turns(2)
        with pytest.raises(Unavailable):
            await store.close(job.id, JobState.CANCELLED, None, NOW + 1)
        with pytest.raises(Unavailable):
            await settling

    assert await store.close(job.id, JobState.CANCELLED, None, NOW + 2) is not None


async def test_claims_outlive_a_full_disk(path: Path, clock: FakeClock) -> None:
    database = Database.open(path)
    store = SqliteJobStore(database, clock)
    jobs = [a_job() for _ in range(50)]
    await store.create_many(jobs)
    async with full(database):
        lease = a_lease("batch-" + BIG)
        claimed = await store.claim([job.id for job in jobs], lease, NOW)
        with pytest.raises(Unavailable):
            await store.due(NOW, 10)
        assert [await store.get(job.id) for job in jobs] == claimed
    await store.aclose()
    await database.close()

    assert await on_disk(path, clock, jobs[0].id) == claimed[0]


async def test_a_key_of_a_failed_request_is_free_again(
    store: SqliteJobStore, database: Database
) -> None:
    key = Idempotency("key", "fingerprint")
    job = a_job(payload=Payload(inline=BIG))
    async with full(database):
        with pytest.raises(Unavailable):
            await store.create(job, key)

    assert (await store.create(job, key)).is_new


async def test_a_caller_that_gives_up_does_not_disturb_the_others(
    store: SqliteJobStore, database: Database
) -> None:
    jobs = [a_job() for _ in range(3)]
    async with stalled(database):
        creating = [asyncio.create_task(store.create(job)) for job in jobs]
        await turns()
        creating[1].cancel()
    await asyncio.gather(*creating, return_exceptions=True)

    assert creating[1].cancelled()
    assert [await store.get(job.id) for job in jobs] == jobs


async def test_what_was_put_off_is_written_at_the_close(path: Path, clock: FakeClock) -> None:
    database = Database.open(path)
    store = SqliteJobStore(database, clock)
    job = await a_running_job(store)
    await store.aclose()
    await database.close()

    assert await on_disk(path, clock, job.id) == job


async def test_many_jobs_at_once_do_not_block_the_loop(store: SqliteJobStore) -> None:
    jobs = [a_job() for _ in range(20_000)]
    spent_before_s = time.process_time()
    longest_s, last_s = 0.0, time.thread_time()
    creating = asyncio.create_task(store.create_many(jobs))
    while not creating.done():
        await asyncio.sleep(0.001)
        now_s = time.thread_time()
        longest_s, last_s = max(longest_s, now_s - last_s), now_s
    await creating

    # Of the processor's time, which nobody else's work adds to: most of it is another thread's.
    assert longest_s < 0.25 * (time.process_time() - spent_before_s)
    assert await store.get(jobs[-1].id) == jobs[-1]


async def test_what_is_forgotten_while_others_are_read_is_claimed_all_the_same(
    database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = SqliteJobStore(database, clock, cache_bytes=6 * 1024)  # three jobs, then those go
    unknown, known = a_job(), a_job()
    for job in (unknown, a_job(), a_job(), a_job(), known, a_job()):
        await store.create(job)
    read = database.read

    async def slow(work: Callable[[sqlite3.Connection], T]) -> T:
        found = await read(work)
        for _ in range(4):
            await store.create(a_job())
        return found

    monkeypatch.setattr(database, "read", slow)
    claimed = await store.claim([unknown.id, known.id], a_lease(), NOW)

    assert [job.id for job in claimed] == [unknown.id, known.id]
    await store.aclose()


async def test_an_end_that_begins_while_its_job_is_read_and_fails_leaves_the_job_to_who_claims(
    store: SqliteJobStore, database: Database, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = a_job()
    await store.create(job)
    forgetful = SqliteJobStore(database, clock)
    read, closing = database.read, list[asyncio.Task[Job | None]]()

    async def slow(work: Callable[[sqlite3.Connection], T]) -> T:
        found = await read(work)
        if not closing:
            close = forgetful.close(job.id, JobState.CANCELLED, None, NOW)
            closing.append(asyncio.create_task(close))
            await asyncio.to_thread(flush.begun.wait, PATIENCE_S)
        return found

    async with flushing(database, monkeypatch) as flush:
        flush.error = sqlite3.OperationalError("database is locked")
        monkeypatch.setattr(database, "read", slow)
        claiming = asyncio.create_task(forgetful.claim([job.id], a_lease(OWNER), NOW))
        await asyncio.to_thread(flush.begun.wait, PATIENCE_S)
        await turns()
        assert not claiming.done()
        flush.end.set()

        with pytest.raises(Unavailable):
            await closing[0]
        flush.error = None
        assert [claimed.id for claimed in await claiming] == [job.id]
    await forgetful.aclose()
