"""StepFunctionsFileBatchStarter: one execution a cause."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from synapse.adapters.aws.file_batch_starter import SAME_NAME_S, StepFunctionsFileBatchStarter
from synapse.domain.access import Principal
from synapse.domain.errors import Unavailable
from synapse.domain.file_batch import FileBatchId
from tests.aws import Aws, Call, intercepted
from tests.factories import a_file_batch
from tests.fakes import FakeClock
from tests.integration.aws.faults import client_error, failing

BATCH = a_file_batch(id=FileBatchId("batch_1"), caller=Principal("team"))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(SAME_NAME_S * 7.0)


@pytest.fixture
def starter(cloud: Aws, clock: FakeClock) -> StepFunctionsFileBatchStarter:
    return StepFunctionsFileBatchStarter(cloud.stepfunctions, cloud.state_machine(), clock=clock)


@contextmanager
def noted(cloud: Aws) -> Iterator[list[dict[str, Any]]]:
    started: list[dict[str, Any]] = []

    def around(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        started.append(arguments)
        return call(operation, arguments)

    with intercepted(cloud.stepfunctions, around):
        yield started


async def test_an_execution_is_told_whose_batch_it_drives(
    cloud: Aws, starter: StepFunctionsFileBatchStarter
) -> None:
    with noted(cloud) as started:
        await starter.start(BATCH)

    assert started[0]["name"] == "batch_1-0-7"
    assert json.loads(started[0]["input"]) == {"tenant": "team", "batchId": "batch_1"}


async def test_a_moved_batch_or_later_times_get_another_execution(
    cloud: Aws, starter: StepFunctionsFileBatchStarter, clock: FakeClock
) -> None:
    with noted(cloud) as started:
        await starter.start(BATCH)
        await starter.start(replace(BATCH, revision=3))
        clock.advance(SAME_NAME_S)
        await starter.start(BATCH)

    assert [each["name"] for each in started] == ["batch_1-0-7", "batch_1-3-7", "batch_1-0-8"]


async def test_the_same_cause_twice_is_no_error(
    cloud: Aws, starter: StepFunctionsFileBatchStarter
) -> None:
    with failing(cloud.stepfunctions, client_error("ExecutionAlreadyExists", "StartExecution")):
        await starter.start(BATCH)


async def test_throttling_is_unavailable(
    cloud: Aws, starter: StepFunctionsFileBatchStarter
) -> None:
    error = client_error("ThrottlingException", "StartExecution")

    with failing(cloud.stepfunctions, error), pytest.raises(Unavailable):
        await starter.start(BATCH)
