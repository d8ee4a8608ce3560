"""JobStore: creating, reading, idempotency, what is due, and waiting for an end."""

from __future__ import annotations

import asyncio
import time

import pytest

from synapse.domain.errors import IdempotencyConflict
from synapse.domain.job import Job, JobState, Payload, Priority, SlaTier
from synapse.ports import Created, Idempotency, JobStore
from tests.contract.arranging import created
from tests.factories import NOW, a_job, a_lease, an_outcome
from tests.fakes import FakeClock
from tests.patience import PATIENCE_S

DAY_S = 86_400.0
KEY = Idempotency("key-1", "fingerprint-1")


async def test_a_new_job_is_recorded(store: JobStore) -> None:
    job = a_job()

    assert await store.create(job) == Created(job, is_new=True)
    assert await store.get(job.id) == job


async def test_every_field_of_a_job_is_kept(store: JobStore) -> None:
    job = a_job(
        model="модель/名前",
        version="2026-08",
        payload=Payload(inline='{"prompt":"naïve “quotes” \\n 🦊 \\u0000"}'),
        priority=Priority.LOW,
        sla=SlaTier.GOLD,
        tokens=123_456,
        tenant="acme#eu",
        account="key000000001",
        announce=True,
        callback_url="https://hooks.example/done?job=1",
        metadata={"": "empty key", "emoji 🦊": "", "a": "b"},
        created_at=NOW + 0.123456,
        sent_at=NOW + 0.654321,
        deadline_at=NOW + 12.000001,
    )

    await store.create(job)

    assert await store.get(job.id) == job


async def test_a_payload_may_lie_in_the_blob_store(store: JobStore) -> None:
    job = a_job(payload=Payload(blob_key="jobs/1/input"))

    await store.create(job)

    kept = await store.get(job.id)
    assert kept is not None and kept.payload == Payload(blob_key="jobs/1/input")


async def test_the_largest_inline_payload_is_kept(store: JobStore) -> None:
    job = a_job(payload=Payload(inline="é" * (100 * 1024)))

    await store.create(job)
    [claimed] = await store.claim([job.id], a_lease(), NOW)
    await store.settle(an_outcome(job.id, result=Payload(inline="x" * 150_000)), "batch-1", NOW)

    kept = await store.get(job.id)
    assert claimed.payload == job.payload
    assert kept is not None and kept.payload == job.payload
    assert kept.result == Payload(inline="x" * 150_000)


async def test_a_job_may_be_claimed_while_it_is_being_recorded(store: JobStore) -> None:
    job = a_job()

    async with store.recording(job):
        [running] = await store.claim([job.id], a_lease(), NOW)

    assert running == job.claimed(a_lease(), NOW)
    assert await store.get(job.id) == running


async def test_a_job_may_end_while_it_is_being_recorded(store: JobStore) -> None:
    job = a_job()

    async with store.recording(job):
        await store.claim([job.id], a_lease(), NOW)
        ended = await store.settle(an_outcome(job.id), "batch-1", NOW + 1)
        assert await store.close(job.id, JobState.CANCELLED, None, NOW + 1) is None

    assert ended is not None and ended.state is JobState.COMPLETED
    assert await store.get(job.id) == ended


async def test_recording_never_overwrites_an_existing_job(store: JobStore) -> None:
    [job] = await created(store)
    [running] = await store.claim([job.id], a_lease(), NOW)

    with pytest.raises(ValueError, match=job.id):
        async with store.recording(a_job(id=job.id, model="other")):
            pytest.fail("it may be claimed")
    assert await store.get(job.id) == running


async def test_an_existing_job_is_never_overwritten(store: JobStore) -> None:
    [job] = await created(store)
    [running] = await store.claim([job.id], a_lease(), NOW)

    with pytest.raises(ValueError, match=job.id):
        await store.create(a_job(id=job.id, model="other"))
    with pytest.raises(ValueError, match=job.id):
        await store.create(a_job(id=job.id, model="other"), KEY)
    assert await store.get(job.id) == running


async def test_many_jobs_are_created_at_once(store: JobStore) -> None:
    jobs = await created(store, 60)

    assert [await store.get(job.id) for job in jobs] == jobs


async def test_creating_no_jobs_is_no_error(store: JobStore) -> None:
    await store.create_many([])


async def test_none_of_many_is_left_to_run_if_one_cannot_be_created(store: JobStore) -> None:
    [existing] = await created(store)
    others = [a_job(), a_job()]

    with pytest.raises(ValueError, match=existing.id):
        await store.create_many([others[0], existing, others[1]])

    for job in others:
        left = await store.get(job.id)
        assert left is None or left.state is JobState.FAILED
    assert await store.get(existing.id) == existing


async def test_the_same_request_again_gets_the_first_job(store: JobStore) -> None:
    first, again = a_job(), a_job()
    await store.create(first, KEY)
    [running] = await store.claim([first.id], a_lease(), NOW)

    assert await store.create(again, KEY) == Created(running, is_new=False)
    assert await store.get(again.id) is None


async def test_another_request_under_the_same_key_is_a_conflict(store: JobStore) -> None:
    first, other = a_job(), a_job()
    await store.create(first, KEY)

    with pytest.raises(IdempotencyConflict):
        await store.create(other, Idempotency(KEY.key, "fingerprint-2"))
    assert await store.get(other.id) is None


async def test_other_keys_are_other_requests(store: JobStore) -> None:
    one, two, three = a_job(), a_job(), a_job()

    await store.create(one, KEY)
    assert (await store.create(two, Idempotency("key-2", KEY.fingerprint))).is_new
    assert (await store.create(three)).is_new


async def test_strange_keys_are_kept_apart(store: JobStore) -> None:
    keys = ["", "#", "a#b", "a", "é", "e\u0301", "k" * 5000, "k" * 5001]

    for key in keys:
        assert (await store.create(a_job(), Idempotency(key, "same"))).is_new
    for key in keys:
        assert not (await store.create(a_job(), Idempotency(key, "same"))).is_new


async def test_the_same_request_many_times_at_once_makes_one_job(store: JobStore) -> None:
    jobs = [a_job() for _ in range(8)]

    answers = await asyncio.gather(*(store.create(job, KEY) for job in jobs))

    [new] = [answer for answer in answers if answer.is_new]
    assert {answer.job.id for answer in answers} == {new.job.id}
    kept = [job.id for job in jobs if await store.get(job.id) is not None]
    assert kept == [new.job.id]


async def test_a_job_is_gone_after_its_retention(store: JobStore, clock: FakeClock) -> None:
    job = a_job(deadline_at=NOW + 60)
    await store.create(job, KEY)
    await store.close(job.id, JobState.EXPIRED, None, NOW + 60)

    clock.advance(60 + 6 * DAY_S)
    assert await store.get(job.id) is not None
    clock.advance(2 * DAY_S)
    assert await store.get(job.id) is None


async def test_a_key_is_new_again_after_its_jobs_retention(
    store: JobStore, clock: FakeClock
) -> None:
    old = a_job(deadline_at=NOW + 60)
    await store.create(old, KEY)
    await store.close(old.id, JobState.EXPIRED, None, NOW + 60)
    now = clock.advance(60 + 8 * DAY_S)
    fresh = a_job(created_at=now)

    answer = await store.create(fresh, Idempotency(KEY.key, "fingerprint-2"))

    assert answer == Created(fresh, is_new=True)
    again = await store.create(a_job(created_at=now), Idempotency(KEY.key, "fingerprint-2"))
    assert again == Created(fresh, is_new=False)


async def test_due_jobs_come_earliest_first(store: JobStore) -> None:
    jobs = [a_job(deadline_at=NOW + seconds) for seconds in (50, 10, 40, 20, 30)]
    await store.create_many(jobs)

    due = await store.due(NOW + 35, 10)

    assert due == [jobs[1], jobs[3], jobs[4]]


async def test_no_more_due_jobs_come_than_asked_for(store: JobStore) -> None:
    jobs = [a_job(deadline_at=NOW + seconds) for seconds in range(30, 0, -1)]
    await store.create_many(jobs)

    assert await store.due(NOW + 60, 3) == [jobs[29], jobs[28], jobs[27]]


async def test_a_job_is_due_when_the_domain_says_so(store: JobStore) -> None:
    [job] = await created(store)
    assert job.due_at is not None

    assert await store.due(job.due_at - 0.001, 10) == []
    assert await store.due(job.due_at, 10) == [job]


async def test_a_claim_puts_off_when_a_job_is_due(store: JobStore) -> None:
    [job] = await created(store)
    [claimed] = await store.claim([job.id], a_lease("batch-1", NOW + 600), NOW)

    assert await store.due(NOW + 599.9, 10) == []
    assert await store.due(NOW + 600, 10) == [claimed]


async def test_a_running_job_is_due_at_its_deadline_if_that_comes_first(store: JobStore) -> None:
    job = a_job(deadline_at=NOW + 30)
    await store.create(job)
    [claimed] = await store.claim([job.id], a_lease("batch-1", NOW + 600), NOW)

    assert await store.due(NOW + 29.9, 10) == []
    assert await store.due(NOW + 30, 10) == [claimed]


async def test_a_renewed_lease_puts_off_when_a_job_is_due(store: JobStore) -> None:
    [job] = await created(store)
    await store.claim([job.id], a_lease("batch-1", NOW + 60), NOW)
    [renewed] = await store.claim([job.id], a_lease("batch-1", NOW + 90), NOW + 50)

    assert await store.due(NOW + 60, 10) == []
    assert await store.due(NOW + 90, 10) == [renewed]


async def test_each_send_in_vain_gives_a_waiting_job_more_patience(store: JobStore) -> None:
    [job] = await created(store)
    again = await store.requeue(job, NOW + 120, lost=False, unanswered=True)
    assert again is not None
    again = await store.requeue(again, NOW + 360, lost=False, unanswered=True)
    assert again is not None

    assert await store.due(NOW + 360 + 479.9, 10) == []
    assert await store.due(NOW + 360 + 480, 10) == [again]


async def test_a_job_that_is_taken_and_given_back_is_due_as_soon_however_often(
    store: JobStore,
) -> None:
    """A worker takes minutes to start, and meanwhile a batch goes round many times."""
    job: Job | None
    [job] = await created(store)
    for number in range(20):
        [held] = await store.claim([job.id], a_lease(f"batch-{number}", NOW + 600), NOW + number)
        job = await store.requeue(held, NOW + number, lost=False)
        assert job is not None
        job = await store.requeue(job, NOW + number, lost=False)  # refused before it was begun
        assert job is not None

    assert await store.due(NOW + 19 + 239.9, 10) == []
    assert await store.due(NOW + 19 + 240, 10) == [job]


async def test_what_was_taken_and_given_back_unbegun_was_not_sent_in_vain_however_late(
    store: JobStore,
) -> None:
    """A batch tries its pools for minutes before it gives back what none of them took."""
    job: Job | None
    [job] = await created(store)
    for number in (1, 2):
        job = await store.requeue(job, NOW + number * 300, lost=False)
        assert job is not None

    assert await store.due(NOW + 600 + 239.9, 10) == []
    assert await store.due(NOW + 600 + 240, 10) == [job]


async def test_ended_jobs_are_never_due(store: JobStore) -> None:
    settled, cancelled = await created(store, 2)
    await store.claim([settled.id], a_lease(), NOW)
    await store.settle(an_outcome(settled.id), "batch-1", NOW + 1)
    await store.close(cancelled.id, JobState.CANCELLED, None, NOW + 1)

    assert await store.due(NOW + 30 * DAY_S, 10) == []


async def test_watching_an_ended_job_returns_at_once(store: JobStore) -> None:
    [job] = await created(store)
    await store.close(job.id, JobState.CANCELLED, None, NOW)

    started = time.monotonic()
    await store.watch(job.id, 30)

    assert time.monotonic() - started < 25


async def test_a_watch_ends_when_the_job_does(store: JobStore) -> None:
    [job] = await created(store)
    await store.claim([job.id], a_lease(), NOW)

    async def wait_for_the_end() -> None:
        while True:
            current = await store.get(job.id)
            if current is not None and current.state.is_final:
                return
            await store.watch(job.id, 30)

    waiting = asyncio.create_task(wait_for_the_end())
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await store.settle(an_outcome(job.id), "batch-1", NOW + 1)

    await asyncio.wait_for(waiting, PATIENCE_S)


async def test_a_watch_gives_up_after_its_timeout(store: JobStore) -> None:
    [job] = await created(store)

    started = time.monotonic()
    await store.watch(job.id, 0.05)

    assert time.monotonic() - started < 25


async def test_the_job_that_was_made_with_a_key_is_found_by_it(store: JobStore) -> None:
    job, idempotency = a_job(), Idempotency("key", "body")
    assert await store.made_with(job.tenant, idempotency) is None
    await store.create(job, idempotency)
    assert await store.made_with(job.tenant, idempotency) == job
    assert await store.made_with("another", idempotency) is None
    with pytest.raises(IdempotencyConflict):
        await store.made_with(job.tenant, Idempotency("key", "another body"))


async def test_that_a_job_is_metered_and_how_many_slots_it_takes_are_remembered(
    store: JobStore,
) -> None:
    job = a_job(metered=True, items=4)
    await store.create(job)
    assert await store.get(job.id) == job
