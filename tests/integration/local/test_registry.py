"""LocalRegistry: what was measured outlives the process."""

from __future__ import annotations

import pytest

from synapse.adapters.local.database import Database
from synapse.adapters.local.registry import LocalRegistry
from synapse.domain.estimate import ServiceRate
from tests.factories import NOW, a_model, a_pool, a_sample
from tests.integration.local.disk import BIG, full

MINUTE_S = 60.0


def a_registry(database: Database, *names: str) -> LocalRegistry:
    models = [a_model(name) for name in names or ("echo",)]
    return LocalRegistry(models, {model.name: [a_pool()] for model in models}, database)


async def test_a_rate_is_known_right_after_a_restart(database: Database) -> None:
    before = a_registry(database)
    await before.record_service(a_sample(10, 2.0), NOW)
    await before.save(NOW)
    await before.record_service(a_sample(10, 2.0), NOW + 1)
    await before.save(NOW + 1)

    after = a_registry(database)
    await after.load()

    assert await after.service_rate("echo", NOW + 9999) == ServiceRate(20, 4.0)


async def test_new_measurements_replace_the_saved_rate_little_by_little(
    database: Database,
) -> None:
    before = a_registry(database)
    await before.record_service(a_sample(10, 1000.0), NOW)
    await before.save(NOW)
    after = a_registry(database)
    await after.load()
    for minute in range(5):
        await after.record_service(a_sample(10, 1.0), NOW + minute * MINUTE_S)

    rate = await after.service_rate("echo", NOW + 5 * MINUTE_S)

    assert rate.seconds_per_item == pytest.approx(0.1)


async def test_a_rate_of_a_model_no_longer_served_is_ignored(database: Database) -> None:
    before = a_registry(database, "echo", "gone")
    await before.record_service(a_sample(model="gone"), NOW)
    await before.save(NOW)

    after = a_registry(database)
    await after.load()

    assert await after.service_rate("gone", NOW) == ServiceRate(0, 0.0)


async def test_saving_fails_without_harm(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    registry = a_registry(database, BIG)
    await registry.record_service(a_sample(model=BIG), NOW)
    async with full(database):
        await registry.save(NOW)

    assert "disk is full" in caplog.text
    assert (await registry.service_rate(BIG, NOW)).items == 10
