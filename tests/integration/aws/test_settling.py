"""What a job reserved is settled once, whatever AWS answers and whoever is left to do it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from synapse.adapters.aws import meter as meter_module
from synapse.adapters.aws import usage as usage_module
from synapse.adapters.aws.counting import COUNT_AGAIN_S
from synapse.adapters.aws.jobs import DynamoJobStore
from synapse.adapters.aws.meter import DynamoMeter
from synapse.adapters.aws.usage import DynamoUsageStore
from synapse.domain.access import Limits
from synapse.domain.errors import Unavailable
from synapse.domain.job import Job, JobState, Served, Usage
from synapse.domain.metering import Bounds, MeterId, Reservation, reservation_of
from synapse.domain.retry import RetryPolicy
from synapse.domain.usage import day_of
from tests.aws import Aws, Call, intercepted
from tests.factories import NOW, a_job, a_lease, an_outcome
from tests.fakes import FakeClock
from tests.integration.aws.faults import answers_lost, client_error

KEY, TENANT = MeterId("acme", "key-1"), MeterId("acme")
LIMITS = Limits(tokens_per_minute=1000, concurrent_jobs=2)
BOUNDS: Bounds = {KEY: LIMITS, TENANT: LIMITS}
LEASE_END = a_lease().expires_at
RESERVED = 100
USED, SERVED = Usage(3, 4), Served("cpu", "cpu", 1)
AFTERWARDS = {"requests": 1, "tokens": 7, "open": 0}

Make = Callable[[], Exception]


def cancelled(reason: str) -> ClientError:
    error = client_error("TransactionCanceledException", "TransactWriteItems")
    response: Any = error.response
    response["CancellationReasons"] = [{"Code": "None"}, {"Code": reason}, {"Code": "None"}]
    return error


FAULTS: dict[str, Make] = {
    "throttled": lambda: client_error("ThrottlingException", "TransactWriteItems"),
    "throttled item": lambda: cancelled("ThrottlingError"),
    "no capacity": lambda: cancelled("ProvisionedThroughputExceeded"),
    "in the way": lambda: cancelled("TransactionConflict"),
    "still at it": lambda: client_error("TransactionInProgressException", "TransactWriteItems"),
    "refused": lambda: client_error("AccessDeniedException", "TransactWriteItems"),
    "unreachable": lambda: EndpointConnectionError(endpoint_url="https://dynamodb"),
}


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses between tries are of no interest here."""
    policy = RetryPolicy(max_attempts=3, base_s=0.0, max_s=0.0)
    monkeypatch.setattr(meter_module, "CONFLICTS", policy)
    monkeypatch.setattr(usage_module, "CONFLICTS", policy)


@pytest.fixture
def meter(cloud: Aws, clock: FakeClock) -> DynamoMeter:
    return DynamoMeter(cloud.dynamodb, cloud.access_table, clock=clock)


@pytest.fixture
def jobs(cloud: Aws, clock: FakeClock, meter: DynamoMeter) -> DynamoJobStore:
    return DynamoJobStore(
        cloud.dynamodb, cloud.jobs_table, clock=clock, usage_table=cloud.access_table, meter=meter
    )


async def a_running_job(jobs: DynamoJobStore, meter: DynamoMeter) -> Job:
    job = a_job(tenant="acme", account="key-1", metered=True)
    reservation = Reservation(reservation_of(job), tuple(BOUNDS), NOW, RESERVED, is_job=True)
    assert (await meter.reserve(reservation, BOUNDS)).refusal is None
    await jobs.create(job)
    [claimed] = await jobs.claim([job.id], a_lease(), NOW)
    return claimed


def counts(cloud: Aws) -> list[dict[str, int]]:
    """What the account's meter and the tenant's show."""
    names = {"r": "requests", "t": "tokens", "o": "open"}
    found = []
    for sort in ("account#key-1", "total"):
        key = {"pk": {"S": "meter#acme"}, "sk": {"S": sort}}
        item = cloud.dynamodb.get_item(TableName=cloud.access_table, Key=key)["Item"]
        found.append(
            {names[n[0]]: int(v["N"]) for n, v in item.items() if "N" in v and n[0] in names}
        )
    return found


def always(operation: str, make: Make) -> Callable[[Call, str, dict[str, Any]], Any]:
    def around(call: Call, name: str, arguments: dict[str, Any]) -> Any:
        if name == operation:
            raise make()
        return call(name, arguments)

    return around


async def test_an_end_settles_and_counts_at_once(
    cloud: Aws, jobs: DynamoJobStore, meter: DynamoMeter
) -> None:
    job = await a_running_job(jobs, meter)
    assert [each["tokens"] for each in counts(cloud)] == [RESERVED, RESERVED]

    await jobs.settle(an_outcome(job.id, usage=USED, served=SERVED), "batch-1", NOW)

    assert counts(cloud) == [AFTERWARDS, AFTERWARDS]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_what_could_not_be_settled_is_settled_by_the_sweeper_and_once(
    cloud: Aws, jobs: DynamoJobStore, meter: DynamoMeter, fault: Make
) -> None:
    job = await a_running_job(jobs, meter)
    with intercepted(cloud.dynamodb, always("TransactWriteItems", fault)):
        ended = await jobs.settle(an_outcome(job.id, usage=USED, served=SERVED), "batch-1", NOW)
        assert await jobs.due(LEASE_END, 100) == []
    assert ended is not None and ended.state is JobState.COMPLETED
    assert [each["open"] for each in counts(cloud)] == [1, 1]

    await asyncio.gather(*(jobs.due(LEASE_END, 100) for _ in range(4)))
    await jobs.due(LEASE_END + COUNT_AGAIN_S, 100)

    assert counts(cloud) == [AFTERWARDS, AFTERWARDS]
    used = await DynamoUsageStore(cloud.dynamodb, cloud.access_table).used(
        "acme", day_of(NOW), day_of(NOW)
    )
    assert [(each.requests, each.prompt_tokens) for each in used.values()] == [(1, 3)]


async def test_one_who_dies_after_the_end_leaves_it_to_the_sweeper(
    cloud: Aws, jobs: DynamoJobStore, meter: DynamoMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await a_running_job(jobs, meter)

    class Killed(BaseException):
        pass

    async def die(*arguments: object) -> None:
        raise Killed

    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(meter, "settle", die)
        await jobs.close(job.id, JobState.CANCELLED, None, NOW)
    await jobs.due(NOW + COUNT_AGAIN_S, 100)

    # It was under way: nobody knows what it had used.
    assert counts(cloud) == [{"requests": 1, "tokens": RESERVED, "open": 0}] * 2


async def test_one_who_dies_between_settling_and_counting_settles_nothing_twice(
    cloud: Aws, jobs: DynamoJobStore, meter: DynamoMeter
) -> None:
    job = await a_running_job(jobs, meter)
    with answers_lost(cloud.dynamodb, "TransactWriteItems"):
        await jobs.settle(an_outcome(job.id, usage=USED, served=SERVED), "batch-1", NOW)
    await jobs.due(LEASE_END, 100)
    await meter.settle(reservation_of(job), None)

    assert counts(cloud) == [AFTERWARDS, AFTERWARDS]


@pytest.mark.parametrize("operation", ["GetItem", "TransactWriteItems"])
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_whoever_settles_is_told_of_no_error_but_ours(
    cloud: Aws, jobs: DynamoJobStore, meter: DynamoMeter, fault: Make, operation: str
) -> None:
    job = await a_running_job(jobs, meter)

    with intercepted(cloud.dynamodb, always(operation, fault)), pytest.raises(Unavailable):
        await meter.settle(reservation_of(job), None)

    assert [each["open"] for each in counts(cloud)] == [1, 1]


async def test_a_job_without_limits_costs_no_look_at_a_meter(
    cloud: Aws, jobs: DynamoJobStore, meter: DynamoMeter, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*arguments: object) -> None:
        raise AssertionError("a job that is not metered was settled")

    monkeypatch.setattr(meter, "settle", refuse)
    job = a_job(tenant="acme", account="key-1")
    await jobs.create(job)

    assert await jobs.close(job.id, JobState.CANCELLED, None, NOW) is not None
