"""What the AWS target knows of the demand, and how it wakes the autoscaler."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import boto3
import pytest

from synapse.adapters.aws.demand import DynamoDemand, DynamoStartTimes, LambdaWaker
from synapse.adapters.aws.jobs import DynamoJobStore
from synapse.adapters.aws.open_jobs import OpenJobs
from synapse.adapters.aws.registry import DynamoRegistry
from synapse.domain.extension import NO_EXTENSIONS
from synapse.domain.inference import TOKEN_IDS
from synapse.domain.job import JobState, Lease, SlaTier
from synapse.domain.load import ModelDemand, TierDemand
from synapse.domain.routing import Need
from tests.aws import NO_RETRIES, Aws, Call, intercepted
from tests.factories import NOW, a_job, a_model, a_sample
from tests.fakes import FakeClock
from tests.integration.aws.faults import client_error, counted, failing

if TYPE_CHECKING:
    from mypy_boto3_lambda.client import LambdaClient

SCALER = "arn:aws:lambda:us-east-1:123456789012:function:scale:live"
NEED = Need(SlaTier.GOLD)


@pytest.fixture
def jobs(cloud: Aws, clock: FakeClock) -> DynamoJobStore:
    return DynamoJobStore(cloud.dynamodb, cloud.jobs_table, clock=clock)


@pytest.fixture
def registry(cloud: Aws, clock: FakeClock) -> DynamoRegistry:
    models = [a_model("echo"), a_model("other")]
    return DynamoRegistry(cloud.dynamodb, cloud.registry_table, models, [], clock=clock)


@pytest.fixture
def demand(cloud: Aws, registry: DynamoRegistry) -> DynamoDemand:
    return DynamoDemand(OpenJobs(cloud.dynamodb, cloud.jobs_table), registry)


@pytest.fixture
def functions() -> LambdaClient:
    return boto3.client("lambda", config=NO_RETRIES)


def queued(demands: list[ModelDemand]) -> dict[tuple[str, SlaTier], int]:
    return {(each.model, tier): of.queued for each in demands for tier, of in each.tiers.items()}


async def test_where_nothing_is_asked_for_there_is_no_demand(demand: DynamoDemand) -> None:
    assert list(await demand.demand(NOW)) == []


async def test_jobs_that_require_an_extension_are_a_demand_of_their_own(
    demand: DynamoDemand, jobs: DynamoJobStore
) -> None:
    for requires in (NO_EXTENSIONS, TOKEN_IDS, TOKEN_IDS):
        await jobs.create(a_job(requires=requires))
    demand.woken("echo", SlaTier.GOLD, NOW, TOKEN_IDS)

    plain, ids = await demand.demand(NOW)

    assert (plain.requires, ids.requires) == (NO_EXTENSIONS, TOKEN_IDS)
    assert queued([plain]) == {("echo", SlaTier.BRONZE): 1}
    assert queued([ids]) == {("echo", SlaTier.BRONZE): 2, ("echo", SlaTier.GOLD): 1}


async def test_jobs_that_wait_are_counted_by_model_and_tier(
    demand: DynamoDemand, jobs: DynamoJobStore
) -> None:
    for model, sla, number in (
        ("echo", SlaTier.GOLD, 2),
        ("echo", SlaTier.BRONZE, 3),
        ("other", SlaTier.SILVER, 1),
    ):
        for _ in range(number):
            await jobs.create(a_job(model=model, sla=sla))

    seen = await demand.demand(NOW)

    assert queued(list(seen)) == {
        ("echo", SlaTier.GOLD): 2,
        ("echo", SlaTier.BRONZE): 3,
        ("other", SlaTier.SILVER): 1,
    }
    assert all(tier.last_at == NOW for each in seen for tier in each.tiers.values())


async def test_jobs_that_run_or_have_ended_do_not_wait(
    demand: DynamoDemand, jobs: DynamoJobStore
) -> None:
    running, ended = a_job(), a_job()
    for job in (running, ended):
        await jobs.create(job)
    await jobs.claim([running.id], Lease("batch", NOW + 60), NOW)
    await jobs.close(ended.id, JobState.CANCELLED, None, NOW)

    assert queued(list(await demand.demand(NOW))) == {}


async def test_more_jobs_than_the_sample_are_counted_all(
    demand: DynamoDemand, jobs: DynamoJobStore
) -> None:
    for number in range(60):
        sla = SlaTier.GOLD if number % 2 else SlaTier.BRONZE
        await jobs.create(a_job(sla=sla, created_at=NOW + number / 100))

    seen = queued(list(await demand.demand(NOW + 1)))

    assert sum(seen.values()) == pytest.approx(60, abs=1)
    assert set(seen) == {("echo", SlaTier.GOLD), ("echo", SlaTier.BRONZE)}


async def test_a_backlog_is_seen_behind_more_running_jobs_than_the_sample(
    demand: DynamoDemand, jobs: DynamoJobStore
) -> None:
    running = [a_job() for _ in range(40)]
    waiting = [a_job(sla=SlaTier.SILVER, sent_at=NOW, sends=3) for _ in range(20)]
    for job in (*running, *waiting):
        await jobs.create(job)
    await jobs.claim([job.id for job in running], Lease("batch", NOW + 100), NOW)

    # They are due later than anything that runs, as nobody is to send them again for a while.
    assert queued(list(await demand.demand(NOW))) == {("echo", SlaTier.SILVER): 20}


async def test_a_model_of_which_few_jobs_wait_is_seen_behind_anothers_backlog(
    demand: DynamoDemand, jobs: DynamoJobStore
) -> None:
    for _ in range(100):
        await jobs.create(a_job(sent_at=NOW - 30))
    for _ in range(3):
        await jobs.create(a_job(model="other", sent_at=NOW))

    seen = queued(list(await demand.demand(NOW)))

    assert seen == {("echo", SlaTier.BRONZE): 100, ("other", SlaTier.BRONZE): 3}


async def test_a_wake_counts_until_the_index_must_have_shown_the_job(
    demand: DynamoDemand,
) -> None:
    demand.woken("echo", SlaTier.GOLD, NOW)

    assert queued(list(await demand.demand(NOW + 59))) == {("echo", SlaTier.GOLD): 1}
    assert list(await demand.demand(NOW + 60)) == []


async def test_what_was_finished_lately_arrived(
    demand: DynamoDemand, registry: DynamoRegistry
) -> None:
    now = 60.0 * (NOW // 60) + 30
    await registry.record_service(a_sample(items=60), now - 60)
    await registry.record_service(a_sample(items=30), now)

    (seen,) = await demand.demand(now)

    assert seen == ModelDemand("echo", {SlaTier.SILVER: TierDemand(0, 1.0, now)})


async def test_a_model_that_worked_long_ago_says_when(
    demand: DynamoDemand, registry: DynamoRegistry
) -> None:
    minute = 60.0 * (NOW // 60)
    await registry.record_service(a_sample(items=60), minute)

    (seen,) = await demand.demand(minute + 600)

    assert seen == ModelDemand("echo", {SlaTier.SILVER: TierDemand(0, 0.0, minute + 60)})


async def test_a_ping_is_no_demand(demand: DynamoDemand, registry: DynamoRegistry) -> None:
    await registry.record_service(a_sample(items=1), 0.0)

    assert list(await demand.demand(NOW)) == []


async def test_the_scaler_is_woken_once_in_two_seconds_for_each_kind(
    functions: LambdaClient,
) -> None:
    clock, sent = FakeClock(NOW), list[dict[str, Any]]()
    waker = LambdaWaker(functions, SCALER, clock=clock)

    def around(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        sent.append(arguments)
        return {}

    with intercepted(functions, around):
        await waker.wake("echo", NEED)
        await waker.wake("echo", NEED)
        await waker.wake("echo", replace(NEED, requires=TOKEN_IDS))
        await waker.wake("other", NEED)
        clock.advance(2.0)
        await waker.wake("echo", NEED)

    woken = [json.loads(each["Payload"]) for each in sent]
    assert [each["model"] for each in woken] == ["echo", "echo", "other", "echo"]
    assert [each["requires"] for each in woken] == [[], ["prompt_token_ids"], [], []]
    assert {each["tier"] for each in woken} == {"gold"}
    assert {(each["FunctionName"], each["InvocationType"]) for each in sent} == {(SCALER, "Event")}


async def test_a_pool_is_woken_by_its_name(functions: LambdaClient) -> None:
    sent = list[dict[str, Any]]()

    def around(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        sent.append(arguments)
        return {}

    with intercepted(functions, around):
        await LambdaWaker(functions, SCALER).wake_pool("gpu-ecs")

    [woken] = sent
    assert json.loads(woken["Payload"]) == {"pool": "gpu-ecs"}
    assert (woken["FunctionName"], woken["InvocationType"]) == (SCALER, "Event")


async def test_a_scaler_that_cannot_be_woken_stops_nobody(functions: LambdaClient) -> None:
    waker = LambdaWaker(functions, SCALER)

    with failing(functions, client_error("TooManyRequestsException", "Invoke", 429)):
        await waker.wake("echo", NEED)
        await waker.wake_pool("gpu-ecs")


async def test_without_a_scaler_nobody_is_woken(functions: LambdaClient) -> None:
    with failing(functions, AssertionError("called")):
        await LambdaWaker(functions, "").wake("echo", NEED)
        await LambdaWaker(functions, "").wake_pool("gpu-ecs")


async def test_starts_are_remembered_by_all(cloud: Aws, clock: FakeClock) -> None:
    one, other = (
        DynamoStartTimes(cloud.dynamodb, cloud.registry_table, clock=clock) for _ in range(2)
    )
    assert await one.startup_s("gpu") is None

    await one.started("gpu", 200.0)
    await one.started("gpu", 100.0)

    assert await one.startup_s("gpu") == 150.0
    assert await other.startup_s("gpu") == 150.0


async def test_a_start_time_is_read_once_a_minute(cloud: Aws, clock: FakeClock) -> None:
    starts = DynamoStartTimes(cloud.dynamodb, cloud.registry_table, clock=clock)

    with counted(cloud.dynamodb) as calls:
        for _ in range(3):
            await starts.startup_s("gpu")
        clock.advance(60.0)
        await starts.startup_s("gpu")

    assert calls == ["GetItem", "GetItem"]
