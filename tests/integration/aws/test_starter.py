"""StepFunctionsBatchStarter: inputs in the shape and within the limits of the state machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from synapse.adapters.aws.starter import StepFunctionsBatchStarter
from synapse.domain.errors import Unavailable
from tests.aws import Aws, Call, intercepted
from tests.factories import a_pool, an_id, an_order
from tests.integration.aws.faults import client_error, failing

Started = list[dict[str, Any]]


@contextmanager
def noted(cloud: Aws) -> Iterator[Started]:
    """The arguments of the executions that are started."""
    started: Started = []

    def around(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        started.append(arguments)
        return call(operation, arguments)

    with intercepted(cloud.stepfunctions, around):
        yield started


@pytest.fixture
def starter(cloud: Aws) -> StepFunctionsBatchStarter:
    return StepFunctionsBatchStarter(cloud.stepfunctions, cloud.state_machine())


async def test_the_input_has_the_shape_that_the_state_machine_reads(
    cloud: Aws, starter: StepFunctionsBatchStarter
) -> None:
    pools = (a_pool("gpu"), a_pool("cpu"))
    order = an_order("job-1", "job-2", id="b1", items=(1, 8), tokens=77, pools=pools)

    with noted(cloud) as started:
        await starter.start([order])

    assert started[0]["name"] == "b1"
    assert json.loads(started[0]["input"]) == {
        "batches": [
            {
                "batchId": "b1",
                "model": "echo",
                "version": "1",
                "jobIds": ["job-1", "job-2"],
                "items": [1, 8],
                "tokens": 77,
                "sla": "bronze",
                "fallback": "",
                "pools": [{"name": pool.name, "runnerArn": pool.runner} for pool in order.pools],
            }
        ]
    }


async def test_an_execution_gets_at_most_forty_batches(
    cloud: Aws, starter: StepFunctionsBatchStarter
) -> None:
    with noted(cloud) as started:
        await starter.start([an_order() for _ in range(95)])

    assert [len(json.loads(s["input"])["batches"]) for s in started] == [40, 40, 15]


async def test_no_input_passes_the_size_limit(
    cloud: Aws, starter: StepFunctionsBatchStarter
) -> None:
    orders = [an_order(*(an_id("é") for _ in range(512))) for _ in range(40)]

    with noted(cloud) as started:
        await starter.start(orders)

    sizes = [len(s["input"].encode()) for s in started]
    assert all(size <= 250 * 1024 for size in sizes)
    assert sum(len(json.loads(s["input"])["batches"]) for s in started) == 40


async def test_a_strange_batch_id_makes_a_legal_name(
    cloud: Aws, starter: StepFunctionsBatchStarter
) -> None:
    with noted(cloud) as started:
        await starter.start([an_order(id="a b/é:" + "x" * 100)])

    assert started[0]["name"] == "a-b---" + "x" * 74


async def test_throttling_is_unavailable(cloud: Aws, starter: StepFunctionsBatchStarter) -> None:
    error = client_error("ThrottlingException", "StartExecution")

    with failing(cloud.stepfunctions, error), pytest.raises(Unavailable):
        await starter.start([an_order()])
