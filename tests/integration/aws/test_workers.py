"""DynamoWorkerRegistry: what reading costs, and what is told when DynamoDB does not answer."""

from __future__ import annotations

import math
from typing import Any

import pytest

from synapse.adapters.aws.workers import DynamoWorkerRegistry
from synapse.domain.errors import Unavailable
from synapse.domain.worker import WorkerState
from tests.aws import Aws, Call, intercepted
from tests.factories import NOW, a_worker
from tests.integration.aws.faults import client_error, counted, failing


@pytest.fixture
def registry(cloud: Aws) -> DynamoWorkerRegistry:
    return DynamoWorkerRegistry(cloud.dynamodb, cloud.registry_table)


async def test_workers_are_read_once_in_two_seconds(
    cloud: Aws, registry: DynamoWorkerRegistry
) -> None:
    await registry.beat(a_worker("w-1", lease_until=NOW + 100))

    with counted(cloud.dynamodb) as calls:
        for seconds in (0.0, 1.0, 1.9, 2.0):
            assert [w.id for w in await registry.workers(NOW + seconds)] == ["w-1"]

    assert calls == ["Query", "Query"]


async def test_a_lease_ends_in_the_cache_too(registry: DynamoWorkerRegistry) -> None:
    await registry.beat(a_worker("w-1", lease_until=NOW + 1))

    assert [w.id for w in await registry.workers(NOW)] == ["w-1"]
    assert list(await registry.workers(NOW + 1.5)) == []


async def test_the_last_that_were_known_count_while_dynamodb_does_not_answer(
    cloud: Aws, registry: DynamoWorkerRegistry
) -> None:
    with failing(cloud.dynamodb, client_error("Throttling")), pytest.raises(Unavailable):
        await registry.workers(NOW)
    await registry.beat(a_worker("w-1", lease_until=NOW + 10))
    await registry.workers(NOW)

    with failing(cloud.dynamodb, client_error("Throttling"), client_error("Throttling")):
        assert [w.id for w in await registry.workers(NOW + 5)] == ["w-1"]
        assert list(await registry.workers(NOW + 11)) == []


async def test_a_beat_that_is_not_written_says_so(
    cloud: Aws, registry: DynamoWorkerRegistry
) -> None:
    with failing(cloud.dynamodb, client_error("Throttling")), pytest.raises(Unavailable):
        await registry.beat(a_worker("w-1"))


async def test_the_dead_that_were_taken_out_are_told_of_even_if_others_could_not_be(
    cloud: Aws, registry: DynamoWorkerRegistry
) -> None:
    for name in ("w-1", "w-2"):
        await registry.beat(a_worker(name))
    deletions = 0

    def around(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        nonlocal deletions
        deletions += operation == "DeleteItem"
        if operation == "DeleteItem" and deletions == 2:
            raise client_error("Throttling")
        return call(operation, arguments)

    with intercepted(cloud.dynamodb, around):
        first = await registry.expire(NOW + 50)
    second = await registry.expire(NOW + 50)

    assert [[w.id for w in told] for told in (first, second)] == [["w-1"], ["w-2"]]


async def test_many_workers_are_read_page_by_page(
    cloud: Aws, registry: DynamoWorkerRegistry
) -> None:
    # A page of DynamoDB's is 1 MB.
    for number in range(12):
        await registry.beat(a_worker(f"w-{number:02}", lease_until=NOW + 9, detail="x" * 100_000))

    with counted(cloud.dynamodb) as calls:
        seen = await registry.workers(NOW)

    assert [w.id for w in seen] == [f"w-{number:02}" for number in range(12)]
    assert calls == ["Query", "Query"]


async def test_workers_that_nobody_looks_for_go_in_time(
    cloud: Aws, registry: DynamoWorkerRegistry
) -> None:
    await registry.beat(a_worker("w-1", lease_until=NOW + 10))

    (item,) = cloud.dynamodb.scan(TableName=cloud.registry_table)["Items"]

    assert float(item["ttl"]["N"]) == math.ceil(NOW + 10 + 86_400)


async def test_a_heartbeat_that_was_overtaken_by_a_later_one_is_ignored(
    registry: DynamoWorkerRegistry,
) -> None:
    newer = a_worker("w-1", beat_at=NOW + 5, lease_until=NOW + 20, state=WorkerState.DEGRADED)
    await registry.beat(newer)

    await registry.beat(a_worker("w-1", beat_at=NOW, lease_until=NOW + 15))

    assert list(await registry.workers(NOW + 6)) == [newer]
