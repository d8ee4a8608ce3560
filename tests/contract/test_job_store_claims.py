"""JobStore: who may run a job, and what happens when two want to."""

from __future__ import annotations

import asyncio

import pytest

from synapse.domain.job import JobId, JobState, Lease
from synapse.ports import JobStore
from tests.contract.arranging import created
from tests.factories import NOW, a_job, a_lease


async def test_a_claim_starts_the_job_under_the_lease(store: JobStore) -> None:
    [job] = await created(store)

    claimed = await store.claim([job.id], a_lease("batch-1"), NOW + 1)

    assert claimed == [job.claimed(a_lease("batch-1"), NOW + 1)]
    assert await store.get(job.id) == claimed[0]


async def test_claims_come_in_the_order_asked_without_what_cannot_be_claimed(
    store: JobStore,
) -> None:
    first, second, third, cancelled = await created(store, 4)
    await store.close(cancelled.id, JobState.CANCELLED, None, NOW)
    ids = [third.id, JobId("no-such-job"), cancelled.id, first.id, third.id, second.id]

    claimed = await store.claim(ids, a_lease(), NOW + 1)

    assert [job.id for job in claimed] == [third.id, first.id, second.id]


async def test_claiming_nothing_is_no_error(store: JobStore) -> None:
    assert await store.claim([], a_lease(), NOW) == []


async def test_a_job_under_a_lease_is_not_given_to_another(store: JobStore) -> None:
    [job] = await created(store)
    [held] = await store.claim([job.id], a_lease("batch-1", NOW + 60), NOW + 1)

    assert await store.claim([job.id], a_lease("batch-2"), NOW + 59.9) == []
    assert await store.get(job.id) == held


async def test_an_abandoned_job_is_taken_over_and_the_loss_counted(store: JobStore) -> None:
    [job] = await created(store)
    [held] = await store.claim([job.id], a_lease("batch-1", NOW + 60), NOW + 1)

    lease = a_lease("batch-2", NOW + 120)
    taken = await store.claim([job.id], lease, NOW + 60)

    assert taken == [held.claimed(lease, NOW + 60)]
    assert taken[0].losses == 1
    assert await store.get(job.id) == taken[0]


@pytest.mark.parametrize("later_s", [10.0, 100.0], ids=["within the lease", "after the lease"])
async def test_a_batch_may_claim_its_own_jobs_again_without_a_loss(
    store: JobStore, later_s: float
) -> None:
    [job] = await created(store)
    [held] = await store.claim([job.id], a_lease("batch-1", NOW + 60), NOW + 1)

    lease = a_lease("batch-1", NOW + 200)
    again = await store.claim([job.id], lease, NOW + later_s)

    assert again == [held.claimed(lease, NOW + later_s)]
    assert (again[0].losses, again[0].started_at) == (0, NOW + 1)


async def test_losses_add_up_over_takeovers_and_requeues(store: JobStore) -> None:
    [job] = await created(store)
    await store.claim([job.id], a_lease("batch-1", NOW + 10), NOW)
    [second] = await store.claim([job.id], a_lease("batch-2", NOW + 20), NOW + 10)
    await store.requeue(second, NOW + 20, lost=True)
    [third] = await store.claim([job.id], a_lease("batch-3", NOW + 40), NOW + 30)
    waiting = await store.requeue(third, NOW + 40, lost=False)

    assert waiting is not None
    assert (waiting.losses, waiting.sends) == (2, 3)


async def test_of_many_claimers_exactly_one_gets_each_job(store: JobStore) -> None:
    ids = [job.id for job in await created(store, 6)]
    owners = [f"batch-{number}" for number in range(5)]

    claims = await asyncio.gather(*(store.claim(ids, a_lease(owner), NOW + 1) for owner in owners))

    assert sorted(job.id for claim in claims for job in claim) == sorted(ids)
    for owner, claim in zip(owners, claims, strict=True):
        for job in claim:
            assert await store.get(job.id) == job
            assert job.lease == a_lease(owner)


async def test_of_many_claimers_exactly_one_takes_an_abandoned_job_over(store: JobStore) -> None:
    [job] = await created(store)
    await store.claim([job.id], a_lease("batch-0", NOW + 10), NOW)

    claims = await asyncio.gather(
        *(store.claim([job.id], a_lease(f"batch-{n}"), NOW + 11) for n in range(1, 6))
    )

    [[winner]] = [claim for claim in claims if claim]
    assert winner.losses == 1
    assert await store.get(job.id) == winner


async def test_a_claim_of_many_jobs_gets_them_all(store: JobStore) -> None:
    jobs = await created(store, 100)

    claimed = await store.claim([job.id for job in jobs], a_lease(), NOW + 1)

    assert [job.id for job in claimed] == [job.id for job in jobs]


async def test_a_job_whose_deadline_comes_before_its_leases_end_is_claimed_alike(
    store: JobStore,
) -> None:
    hasty, patient = a_job(deadline_at=NOW + 30), a_job(deadline_at=NOW + 7200)
    await store.create_many([hasty, patient])

    for job in (hasty, patient, hasty, patient):
        lease = Lease("batch-1", NOW + 600)
        [claimed] = await store.claim([job.id], lease, NOW + 1)
        assert claimed == job.claimed(lease, NOW + 1)


async def test_a_job_is_requeued_only_as_it_was_seen(store: JobStore) -> None:
    [job] = await created(store)
    [seen] = await store.claim([job.id], a_lease("batch-1", NOW + 10), NOW)
    [taken] = await store.claim([job.id], a_lease("batch-2", NOW + 60), NOW + 11)

    assert await store.requeue(job, NOW + 12, lost=False) is None
    assert await store.requeue(seen, NOW + 12, lost=True) is None
    assert await store.get(job.id) == taken


async def test_a_waiting_job_is_sent_again_only_once(store: JobStore) -> None:
    [job] = await created(store)

    sent = await asyncio.gather(*(store.requeue(job, NOW + 9, lost=False) for _ in range(4)))

    winners = [again for again in sent if again is not None]
    assert winners == [job.requeued(NOW + 9, lost=False)]
    assert await store.get(job.id) == winners[0]


async def test_a_renewed_lease_does_not_hide_a_job_from_its_giver_back(store: JobStore) -> None:
    [job] = await created(store)
    [seen] = await store.claim([job.id], a_lease("batch-1", NOW + 10), NOW)
    [renewed] = await store.claim([job.id], a_lease("batch-1", NOW + 60), NOW + 5)

    assert await store.requeue(seen, NOW + 6, lost=False) == renewed.requeued(NOW + 6, lost=False)


async def test_a_requeued_job_can_be_claimed_by_anyone(store: JobStore) -> None:
    [job] = await created(store)
    [held] = await store.claim([job.id], a_lease("batch-1"), NOW)
    await store.requeue(held, NOW + 5, lost=True)

    [claimed] = await store.claim([job.id], a_lease("batch-2"), NOW + 6)

    assert (claimed.lease, claimed.losses) == (a_lease("batch-2"), 1)


@pytest.mark.parametrize("lost", [False, True])
async def test_a_requeued_job_has_not_begun(store: JobStore, lost: bool) -> None:
    [job] = await created(store)
    [held] = await store.claim([job.id], a_lease(), NOW + 1)
    await store.requeue(held, NOW + 5, lost=lost)

    closed = await store.close(job.id, JobState.CANCELLED, None, NOW + 6)

    assert closed is not None
    assert closed.started_at is None
    assert await store.get(job.id) == closed
