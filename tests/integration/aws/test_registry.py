"""DynamoRegistry: what a rate costs to read, and what is forgotten."""

from __future__ import annotations

import pytest

from synapse.adapters.aws.registry import DynamoRegistry
from synapse.domain.errors import Unavailable
from tests.aws import Aws
from tests.factories import NOW, a_health, a_model, a_pool, a_sample
from tests.fakes import FakeClock
from tests.integration.aws.faults import client_error, counted, failing

DAY_S = 86_400


@pytest.fixture
def registry(cloud: Aws, clock: FakeClock) -> DynamoRegistry:
    return DynamoRegistry(
        cloud.dynamodb, cloud.registry_table, [a_model()], [a_pool()], clock=clock
    )


async def test_a_rate_is_read_once_in_five_seconds(cloud: Aws, registry: DynamoRegistry) -> None:
    await registry.record_service(a_sample(), NOW)

    with counted(cloud.dynamodb) as calls:
        for seconds in (0.0, 1.0, 4.9, 5.0):
            assert (await registry.service_rate("echo", NOW + seconds)).items == 10

    assert calls == ["Query", "Query"]


async def test_the_last_rate_serves_while_dynamodb_does_not_answer(
    cloud: Aws, registry: DynamoRegistry
) -> None:
    with failing(cloud.dynamodb, client_error("Throttling")), pytest.raises(Unavailable):
        await registry.service_rate("echo", NOW)
    await registry.record_service(a_sample(), NOW)
    known = await registry.service_rate("echo", NOW)

    with failing(cloud.dynamodb, client_error("ThrottlingException")):
        assert await registry.service_rate("echo", NOW + 60) == known


async def test_another_process_sees_the_rate(
    cloud: Aws, registry: DynamoRegistry, clock: FakeClock
) -> None:
    await registry.record_service(a_sample(), NOW)
    other = DynamoRegistry(cloud.dynamodb, cloud.registry_table, [], [], clock=clock)

    assert (await other.service_rate("echo", NOW)).seconds_per_item == pytest.approx(0.2)


async def test_everything_measured_is_forgotten_in_time(
    cloud: Aws, registry: DynamoRegistry
) -> None:
    await registry.record_service(a_sample(), NOW)
    await registry.record_health(a_health())

    items = cloud.dynamodb.scan(TableName=cloud.registry_table)["Items"]

    lives = {item["pk"]["S"]: float(item["ttl"]["N"]) - NOW for item in items}
    assert lives == {
        "rate#echo": pytest.approx(DAY_S, abs=1),
        "health": pytest.approx(7 * DAY_S, abs=1),
    }


async def test_a_worker_not_seen_for_a_week_is_not_reported(
    registry: DynamoRegistry, clock: FakeClock
) -> None:
    await registry.record_health(a_health())

    clock.advance(7 * DAY_S + 1)

    assert list(await registry.health()) == []


async def test_what_an_earlier_deployment_served_is_not_reported(
    cloud: Aws, clock: FakeClock
) -> None:
    def deployed(models: list[str], *pools: str) -> DynamoRegistry:
        specs, served = [a_model(name) for name in models], [a_pool(name) for name in pools]
        return DynamoRegistry(cloud.dynamodb, cloud.registry_table, specs, served, clock=clock)

    earlier = deployed(["echo", "old"], "cpu", "primary")
    seen = [("cpu", "echo"), ("cpu", "old"), ("primary", "echo")]
    for pool, model in seen:
        await earlier.record_health(a_health(pool, model, healthy=False))

    assert len(await earlier.health()) == 3
    assert list(await deployed(["echo"], "cpu").health()) == [a_health("cpu", healthy=False)]
