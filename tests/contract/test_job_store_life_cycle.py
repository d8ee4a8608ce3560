"""JobStore: every legal change happens, every illegal one is refused and changes nothing."""

from __future__ import annotations

import asyncio

import pytest

from synapse.domain.job import (
    Failure,
    JobId,
    JobState,
    Lease,
    Payload,
    Served,
    Usage,
    sources,
)
from synapse.ports import JobStore
from tests.contract.arranging import OWNER, job_in
from tests.factories import NOW, a_job, a_lease, an_outcome

FINAL = [state for state in JobState if state.is_final]


@pytest.mark.parametrize("state", JobState)
async def test_a_job_reads_back_exactly_in_every_state(store: JobStore, state: JobState) -> None:
    job = await job_in(store, state)

    assert await store.get(job.id) == job


@pytest.mark.parametrize("target", FINAL)
@pytest.mark.parametrize("state", JobState)
async def test_close_follows_the_table_of_transitions(
    store: JobStore, state: JobState, target: JobState
) -> None:
    before = await job_in(store, state)
    failure = Failure("because", "of a reason", "temperature")

    after = await store.close(before.id, target, failure, NOW + 5)

    if state in sources(target):
        assert after == before.closed(target, failure, NOW + 5)
        assert await store.get(before.id) == after
    else:
        assert after is None
        assert await store.get(before.id) == before


@pytest.mark.parametrize("target", FINAL)
@pytest.mark.parametrize("state", JobState)
async def test_only_a_running_job_can_be_settled(
    store: JobStore, state: JobState, target: JobState
) -> None:
    before = await job_in(store, state)
    outcome = an_outcome(before.id, target)

    after = await store.settle(outcome, OWNER, NOW + 5)

    if state is JobState.RUNNING:
        assert after == before.settled(outcome, NOW + 5)
        assert await store.get(before.id) == after
    else:
        assert after is None
        assert await store.get(before.id) == before


@pytest.mark.parametrize("state", JobState)
async def test_only_open_jobs_can_be_requeued(store: JobStore, state: JobState) -> None:
    before = await job_in(store, state)

    after = await store.requeue(before, NOW + 5, lost=True)

    if state.is_final:
        assert after is None
        assert await store.get(before.id) == before
    else:
        assert after == before.requeued(NOW + 5, lost=True)
        assert await store.get(before.id) == after


@pytest.mark.parametrize("state", FINAL)
async def test_an_ended_job_cannot_be_claimed(store: JobStore, state: JobState) -> None:
    before = await job_in(store, state)

    assert await store.claim([before.id], a_lease(OWNER), NOW + 5) == []
    assert await store.get(before.id) == before


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING])
async def test_a_job_cannot_end_in_an_open_state(store: JobStore, state: JobState) -> None:
    before = await job_in(store, JobState.RUNNING)

    with pytest.raises(ValueError, match=state):
        await store.close(before.id, state, None, NOW + 5)
    with pytest.raises(ValueError, match=state):
        an_outcome(before.id, state)
    assert await store.get(before.id) == before


async def test_a_job_that_waited_at_its_runner_began_when_it_was_let_in(store: JobStore) -> None:
    job = await job_in(store, JobState.RUNNING)

    settled = await store.settle(an_outcome(job.id, began_at=NOW + 4.5), OWNER, NOW + 5)

    assert settled is not None
    assert settled.started_at == NOW + 4.5
    assert await store.get(job.id) == settled


async def test_a_job_that_no_engine_was_asked_for_never_began(store: JobStore) -> None:
    job = await job_in(store, JobState.RUNNING)
    assert job.started_at is not None
    outcome = an_outcome(job.id, JobState.EXPIRED, unrun=True)

    settled = await store.settle(outcome, OWNER, NOW + 5)

    assert settled is not None
    assert (settled.state, settled.started_at) == (JobState.EXPIRED, None)
    assert await store.get(job.id) == settled


async def test_an_outcome_is_kept_in_full(store: JobStore) -> None:
    job = await job_in(store, JobState.RUNNING)
    outcome = an_outcome(
        job.id,
        result=Payload(inline='{"text":"¿qué? 日本 🦊\\u0000"}'),
        usage=Usage(17, 0),
        served=Served("gpu", "nvidia-h200", 32, "w-1", "no pool meets tier gold"),
    )

    settled = await store.settle(outcome, OWNER, NOW + 0.123456)

    assert settled is not None
    assert await store.get(job.id) == settled
    assert settled.result == outcome.result
    assert settled.usage == Usage(17, 0)
    assert settled.served == outcome.served
    assert settled.finished_at == NOW + 0.123456


async def test_a_result_may_lie_in_the_blob_store(store: JobStore) -> None:
    job = await job_in(store, JobState.RUNNING)
    claim_check = Payload(blob_key=f"jobs/{job.id}/result-{OWNER}")

    await store.settle(an_outcome(job.id, result=claim_check), OWNER, NOW + 5)

    settled = await store.get(job.id)
    assert settled is not None and settled.result == claim_check


async def test_a_failure_is_kept_without_a_result(store: JobStore) -> None:
    job = await job_in(store, JobState.RUNNING)
    failure = Failure("invalid_input", "the model refused it: “too long”", "prompt")

    await store.settle(an_outcome(job.id, JobState.FAILED, failure=failure), OWNER, NOW + 5)

    settled = await store.get(job.id)
    assert settled is not None
    assert (settled.failure, settled.result, settled.usage) == (failure, None, None)


async def test_a_late_duplicate_outcome_is_refused(store: JobStore) -> None:
    job = await job_in(store, JobState.RUNNING)
    first = await store.settle(an_outcome(job.id), OWNER, NOW + 5)
    late = an_outcome(job.id, JobState.FAILED, failure=Failure("engine_error", "late"))

    assert await store.settle(late, OWNER, NOW + 6) is None
    assert await store.settle(an_outcome(job.id), OWNER, NOW + 5) is None
    assert await store.get(job.id) == first


async def test_an_outcome_of_a_stranger_is_refused(store: JobStore) -> None:
    job = await job_in(store, JobState.RUNNING)

    assert await store.settle(an_outcome(job.id), "batch-2", NOW + 5) is None
    assert await store.get(job.id) == job


async def test_an_outcome_is_refused_after_another_took_the_job_over(store: JobStore) -> None:
    job = await job_in(store, JobState.RUNNING)
    assert job.lease is not None
    later = job.lease.expires_at
    [taken] = await store.claim([job.id], Lease("batch-2", later + 600), later)

    assert await store.settle(an_outcome(job.id), OWNER, later + 1) is None
    assert await store.get(job.id) == taken


async def test_an_outcome_is_refused_after_the_job_went_back_to_its_queue(
    store: JobStore,
) -> None:
    job = await job_in(store, JobState.RUNNING)
    waiting = await store.requeue(job, NOW + 4, lost=False)

    assert await store.settle(an_outcome(job.id), OWNER, NOW + 5) is None
    assert await store.get(job.id) == waiting


async def test_an_outcome_after_the_lease_ran_out_counts_if_nobody_took_over(
    store: JobStore,
) -> None:
    job = await job_in(store, JobState.RUNNING)
    assert job.lease is not None

    settled = await store.settle(an_outcome(job.id), OWNER, job.lease.expires_at + 1)

    assert settled is not None and settled.state is JobState.COMPLETED


async def test_of_an_outcome_and_a_cancellation_exactly_one_wins(store: JobStore) -> None:
    for _ in range(5):
        job = await job_in(store, JobState.RUNNING)

        settled, cancelled = await asyncio.gather(
            store.settle(an_outcome(job.id), OWNER, NOW + 5),
            store.close(job.id, JobState.CANCELLED, None, NOW + 5),
        )

        winners = [winner for winner in (settled, cancelled) if winner is not None]
        assert len(winners) == 1
        assert await store.get(job.id) == winners[0]


async def test_unknown_ids_change_nothing(store: JobStore) -> None:
    nobody = JobId("no-such-job")

    assert await store.get(nobody) is None
    assert await store.claim([nobody], a_lease(), NOW) == []
    assert await store.settle(an_outcome(nobody), OWNER, NOW) is None
    assert await store.close(nobody, JobState.CANCELLED, None, NOW) is None
    assert await store.requeue(a_job(id=nobody), NOW, lost=False) is None
    assert await store.get(nobody) is None
    assert await store.due(NOW + 1e6, 10) == []
