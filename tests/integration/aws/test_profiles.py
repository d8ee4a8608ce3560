"""What DynamoProfileStore does with DynamoDB's time and troubles."""

from __future__ import annotations

import pytest

from synapse.adapters.aws.profiles import PROFILES_VALID_S, DynamoProfileStore
from synapse.domain.errors import Unavailable
from tests.aws import Aws
from tests.contract.test_profile_store import FULL, PLAIN
from tests.fakes import FakeClock
from tests.integration.aws.faults import client_error, counted, failing

THROTTLED = client_error("ThrottlingException", "Query")


async def test_requests_are_answered_from_a_copy(cloud: Aws, clock: FakeClock) -> None:
    store = DynamoProfileStore(cloud.dynamodb, cloud.registry_table, clock=clock)
    other = DynamoProfileStore(cloud.dynamodb, cloud.registry_table, clock=clock)

    with counted(cloud.dynamodb) as asked:
        for _ in range(5):
            assert await store.profile("echo", "1", "cpu") is None
    assert asked == ["Query"]

    await other.keep(PLAIN)
    assert await store.profile("echo", "1", "cpu") is None
    clock.advance(PROFILES_VALID_S)
    assert await store.profile("echo", "1", "cpu") == PLAIN


async def test_an_old_copy_is_better_than_none(cloud: Aws, clock: FakeClock) -> None:
    store = DynamoProfileStore(cloud.dynamodb, cloud.registry_table, clock=clock)
    await store.keep(FULL)
    assert await store.profile("smollm2", "3", "gpu") == FULL
    clock.advance(PROFILES_VALID_S)

    with failing(cloud.dynamodb, THROTTLED):
        assert await store.profile("smollm2", "3", "gpu") == FULL


async def test_without_a_copy_the_trouble_is_told(cloud: Aws, clock: FakeClock) -> None:
    store = DynamoProfileStore(cloud.dynamodb, cloud.registry_table, clock=clock)

    with failing(cloud.dynamodb, THROTTLED), pytest.raises(Unavailable):
        await store.profile("echo", "1", "cpu")
    with failing(cloud.dynamodb, THROTTLED), pytest.raises(Unavailable):
        await store.keep(PLAIN)
