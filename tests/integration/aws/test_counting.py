"""Jobs' ends in DynamoDB are counted once: also when AWS refuses, or whoever ended them is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from synapse.adapters.aws import usage as module
from synapse.adapters.aws.counting import COUNT_AGAIN_S
from synapse.adapters.aws.jobs import DynamoJobStore
from synapse.adapters.aws.usage import DynamoUsageStore
from synapse.domain.job import Job, JobState, Usage
from synapse.domain.retry import RetryPolicy
from synapse.domain.usage import UsageKey, Used, day_of
from tests.aws import Aws, Call, intercepted
from tests.factories import NOW, a_job, a_lease, an_outcome
from tests.fakes import FakeClock
from tests.integration.aws.faults import answers_lost

KEY = UsageKey("acme", "key-1", "echo", day_of(NOW))
TRANSACT = "TransactWriteItems"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries are of no interest here."""
    monkeypatch.setattr(module, "CONFLICTS", RetryPolicy(max_attempts=4, base_s=0.0, max_s=0.0))


@pytest.fixture
def jobs(cloud: Aws, clock: FakeClock) -> DynamoJobStore:
    return DynamoJobStore(
        cloud.dynamodb, cloud.jobs_table, clock=clock, usage_table=cloud.access_table
    )


def conflict(reason: str = "TransactionConflict") -> ClientError:
    response: Any = {
        "Error": {"Code": "TransactionCanceledException", "Message": "as told by AWS"},
        "CancellationReasons": [{"Code": "None"}, {"Code": reason}],
    }
    return ClientError(response, TRANSACT)


def refusing(
    times: int, make: Callable[[], Exception]
) -> Callable[[Call, str, dict[str, Any]], Any]:
    left = [times]

    def around(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        if operation == TRANSACT and left[0]:
            left[0] -= 1
            raise make()
        return call(operation, arguments)

    return around


async def a_claimed_job(jobs: DynamoJobStore) -> Job:
    job = a_job(tenant="acme", account="key-1")
    await jobs.create(job)
    [claimed] = await jobs.claim([job.id], a_lease(), NOW)
    return claimed


async def counted(cloud: Aws) -> dict[UsageKey, Used]:
    store = DynamoUsageStore(cloud.dynamodb, cloud.access_table)
    return dict(await store.used("acme", KEY.day, KEY.day))


async def test_one_that_stands_in_the_way_is_waited_for(cloud: Aws, jobs: DynamoJobStore) -> None:
    job = await a_claimed_job(jobs)

    with intercepted(cloud.dynamodb, refusing(3, conflict)):
        await jobs.settle(an_outcome(job.id, usage=Usage(1, 2)), "batch-1", NOW)

    assert await counted(cloud) == {KEY: Used(1, 0, 1, 2)}


@pytest.mark.parametrize(
    "fault", [conflict, lambda: EndpointConnectionError(endpoint_url="https://dynamodb")]
)
async def test_an_end_that_was_not_counted_is_found_by_the_sweeper_and_counted_once(
    cloud: Aws, jobs: DynamoJobStore, fault: Callable[[], Exception]
) -> None:
    job = await a_claimed_job(jobs)
    with intercepted(cloud.dynamodb, refusing(100, fault)):
        ended = await jobs.settle(an_outcome(job.id, usage=Usage(1, 2)), "batch-1", NOW)
    assert ended is not None and ended.state is JobState.COMPLETED
    assert await counted(cloud) == {}

    lease_end = a_lease().expires_at
    early = await jobs.due(lease_end - 1, 100)
    assert (early, await counted(cloud)) == ([], {})
    for _ in range(3):
        assert await jobs.due(lease_end, 100) == []

    assert await counted(cloud) == {KEY: Used(1, 0, 1, 2)}
    assert await jobs.get(job.id) == ended


async def test_what_could_not_be_counted_for_want_of_capacity_is_tried_again(
    cloud: Aws, jobs: DynamoJobStore
) -> None:
    usage = DynamoUsageStore(cloud.dynamodb, cloud.access_table)

    with intercepted(cloud.dynamodb, refusing(3, lambda: conflict("ThrottlingError"))):
        await usage.add(KEY, Used(1, 0, 1, 2))

    assert await counted(cloud) == {KEY: Used(1, 0, 1, 2)}


async def test_two_sweepers_count_it_once(cloud: Aws, jobs: DynamoJobStore) -> None:
    job = await a_claimed_job(jobs)
    with intercepted(cloud.dynamodb, refusing(100, conflict)):
        await jobs.close(job.id, JobState.FAILED, None, NOW)

    await asyncio.gather(*(jobs.due(NOW + COUNT_AGAIN_S, 100) for _ in range(5)))

    assert await counted(cloud) == {KEY: Used(1, 1)}


async def test_a_repeated_count_is_no_second_one(cloud: Aws, jobs: DynamoJobStore) -> None:
    job = await a_claimed_job(jobs)

    with answers_lost(cloud.dynamodb, TRANSACT):
        await jobs.settle(an_outcome(job.id), "batch-1", NOW)

    assert await counted(cloud) == {KEY: Used(1)}


async def test_a_counted_job_leaves_the_index_of_open_jobs(
    cloud: Aws, jobs: DynamoJobStore
) -> None:
    job = await a_claimed_job(jobs)

    await jobs.settle(an_outcome(job.id), "batch-1", NOW)

    item = cloud.dynamodb.get_item(TableName=cloud.jobs_table, Key={"pk": {"S": f"job#{job.id}"}})
    assert not {"uncounted", "open_shard", "due_at", "lease_owner"} & set(item["Item"])


async def test_usage_that_cannot_be_written_breaks_no_request(cloud: Aws) -> None:
    store = DynamoUsageStore(cloud.dynamodb, cloud.access_table)

    with intercepted(cloud.dynamodb, refusing(100, conflict)):
        await store.add(KEY, Used(1))

    assert await counted(cloud) == {}
