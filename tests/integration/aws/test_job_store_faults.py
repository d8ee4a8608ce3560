"""DynamoJobStore when AWS refuses, breaks down, or its answers are lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from synapse.adapters.aws.jobs import DynamoJobStore
from synapse.domain.errors import Unavailable
from synapse.domain.job import JobState
from synapse.ports import Created, Idempotency
from tests.aws import Aws, Call, intercepted
from tests.factories import NOW, a_job, a_lease, an_outcome
from tests.integration.aws.faults import answers_lost, client_error, failing, unanswered

PASSING = [
    client_error("ThrottlingException"),
    client_error("ProvisionedThroughputExceededException"),
    client_error("RequestLimitExceeded"),
    client_error("TransactionConflictException"),
    client_error("InternalServerError", status=500),
    client_error("Whatever", status=503),
    EndpointConnectionError(endpoint_url="https://dynamodb"),
    ReadTimeoutError(endpoint_url="https://dynamodb"),
]


@pytest.mark.parametrize("error", PASSING, ids=str)
async def test_passing_faults_are_unavailable(
    cloud: Aws, store: DynamoJobStore, error: Exception
) -> None:
    job = a_job()
    with failing(cloud.dynamodb, error), pytest.raises(Unavailable) as raised:
        await store.create(job)

    assert raised.value.__cause__ is error
    assert "dynamodb" not in raised.value.message
    assert (await store.create(job)).is_new


async def test_our_own_mistakes_are_not_called_unavailable(
    cloud: Aws, store: DynamoJobStore
) -> None:
    error = client_error("AccessDeniedException")

    with failing(cloud.dynamodb, error), pytest.raises(ClientError) as raised:
        await store.settle(an_outcome(a_job().id), "batch-1", NOW)

    assert raised.value is error


async def test_a_repeated_creation_is_still_new(cloud: Aws, store: DynamoJobStore) -> None:
    job = a_job()

    with answers_lost(cloud.dynamodb, "PutItem"):
        created = await store.create(job)

    assert created == Created(job, is_new=True)


@pytest.mark.parametrize("key", [None, Idempotency("key", "body")])
async def test_a_creation_to_which_no_answer_came_is_found(
    cloud: Aws, store: DynamoJobStore, key: Idempotency | None
) -> None:
    job = a_job()

    with unanswered(cloud.dynamodb, "PutItem", "TransactWriteItems"):
        created = await store.create(job, key)

    assert created == Created(job, is_new=True)
    assert await store.get(job.id) == job


async def test_a_creation_of_which_nobody_can_tell_is_refused(
    cloud: Aws, store: DynamoJobStore
) -> None:
    with unanswered(cloud.dynamodb, "PutItem", "GetItem"), pytest.raises(Unavailable):
        await store.create(a_job())


async def test_a_repeated_claim_counts_no_loss(cloud: Aws, store: DynamoJobStore) -> None:
    job = a_job()
    await store.create(job)

    with answers_lost(cloud.dynamodb, "UpdateItem"):
        claimed = await store.claim([job.id], a_lease(), NOW)

    assert claimed == [job.claimed(a_lease(), NOW)]


async def test_a_repeated_takeover_counts_one_loss(cloud: Aws, store: DynamoJobStore) -> None:
    job = a_job()
    await store.create(job)
    await store.claim([job.id], a_lease("batch-0", NOW + 1), NOW)

    with answers_lost(cloud.dynamodb, "UpdateItem"):
        [taken] = await store.claim([job.id], a_lease("batch-1"), NOW + 1)

    assert taken.losses == 1


async def test_a_repeated_outcome_is_known_to_have_been_written(
    cloud: Aws, store: DynamoJobStore
) -> None:
    job = a_job()
    await store.create(job)
    [claimed] = await store.claim([job.id], a_lease(), NOW)
    outcome = an_outcome(job.id)

    with answers_lost(cloud.dynamodb, "UpdateItem"):
        settled = await store.settle(outcome, "batch-1", NOW + 1)

    assert settled == claimed.settled(outcome, NOW + 1)
    assert await store.settle(outcome, "batch-1", NOW + 1) is None


async def test_a_repeated_requeue_sends_once(cloud: Aws, store: DynamoJobStore) -> None:
    job = a_job()
    await store.create(job)
    [claimed] = await store.claim([job.id], a_lease(), NOW)

    with answers_lost(cloud.dynamodb, "UpdateItem"):
        waiting = await store.requeue(claimed, NOW + 1, lost=True)

    assert waiting == claimed.requeued(NOW + 1, lost=True)


async def test_a_repeated_close_is_known_to_have_been_written(
    cloud: Aws, store: DynamoJobStore
) -> None:
    job = a_job()
    await store.create(job)

    with answers_lost(cloud.dynamodb, "UpdateItem"):
        closed = await store.close(job.id, JobState.CANCELLED, None, NOW + 1)

    assert closed == job.closed(JobState.CANCELLED, None, NOW + 1)


def _cancelled(*codes: str) -> ClientError:
    error: Any = client_error("TransactionCanceledException", "TransactWriteItems")
    error.response["CancellationReasons"] = [{"Code": code} for code in codes]
    return error  # type: ignore[no-any-return]


async def test_an_undecided_conflict_over_a_key_is_tried_again(
    cloud: Aws, store: DynamoJobStore
) -> None:
    conflict = _cancelled("None", "TransactionConflict")
    job = a_job()

    with failing(cloud.dynamodb, conflict, conflict):
        created = await store.create(job, Idempotency("key", "body"))

    assert created == Created(job, is_new=True)


async def test_an_endless_conflict_over_a_key_is_unavailable(
    cloud: Aws, store: DynamoJobStore
) -> None:
    conflicts = [_cancelled("None", "TransactionConflict") for _ in range(20)]

    with failing(cloud.dynamodb, *conflicts), pytest.raises(Unavailable):
        await store.create(a_job(), Idempotency("key", "body"))


async def test_many_jobs_of_which_one_fails_are_all_undone(
    cloud: Aws, store: DynamoJobStore
) -> None:
    jobs = [a_job() for _ in range(10)]
    unlucky = jobs[6].id

    def around(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        if operation == "PutItem" and arguments["Item"]["id"]["S"] == unlucky:
            raise client_error("ThrottlingException", operation)
        return call(operation, arguments)

    with intercepted(cloud.dynamodb, around), pytest.raises(Unavailable):
        await store.create_many(jobs)

    kept = await asyncio.gather(*(store.get(job.id) for job in jobs))
    assert {job.state for job in kept if job is not None} == {JobState.FAILED}
    assert await store.due(NOW + 1e6, 100) == []


async def test_a_job_that_changes_under_every_attempt_is_left_alone(
    cloud: Aws, store: DynamoJobStore
) -> None:
    job = a_job(deadline_at=NOW + 1)
    await store.create(job)
    refusals = [client_error("ConditionalCheckFailedException") for _ in range(20)]
    writes = 0

    def around(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        nonlocal writes
        if operation == "UpdateItem":
            writes += 1
            raise refusals.pop()
        return call(operation, arguments)

    with intercepted(cloud.dynamodb, around):
        assert await store.claim([job.id], a_lease(), NOW) == []
    assert writes == 6
