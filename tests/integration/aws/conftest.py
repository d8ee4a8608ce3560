"""A fresh emulated AWS for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from synapse.adapters.aws.jobs import DynamoJobStore
from tests.aws import Aws, aws
from tests.fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def cloud() -> Iterator[Aws]:
    with aws() as cloud:
        yield cloud


@pytest.fixture
def store(cloud: Aws, clock: FakeClock) -> DynamoJobStore:
    return DynamoJobStore(cloud.dynamodb, cloud.jobs_table, clock=clock)
