"""Registry: the catalogue as given, rates as measured lately, health as last seen."""

from __future__ import annotations

import asyncio

import pytest

from synapse.domain.estimate import ServiceRate
from synapse.ports import Registry
from tests.contract.openers import MODELS, POOLS
from tests.factories import NOW, a_health, a_sample

MINUTE_S = 60.0


async def test_models_come_by_name(registry: Registry) -> None:
    assert list(await registry.models()) == sorted(MODELS, key=lambda model: model.name)


async def test_a_model_is_found_by_its_name(registry: Registry) -> None:
    assert await registry.model("smollm2") == MODELS[0]
    assert await registry.model("nobody") is None


async def test_a_models_pools_come_in_the_order_of_choice(registry: Registry) -> None:
    assert list(await registry.pools("echo")) == list(POOLS)
    assert list(await registry.pools("nobody")) == []


async def test_nothing_measured_is_no_rate(registry: Registry) -> None:
    rate = await registry.service_rate("echo", NOW)

    assert rate == ServiceRate(0, 0.0)
    assert rate.seconds_per_item is None


async def test_samples_add_up(registry: Registry) -> None:
    await registry.record_service(a_sample(10, 2.0), NOW)
    await registry.record_service(a_sample(30, 4.0005), NOW + 0.5)
    await registry.record_service(a_sample(5, 1.0), NOW + MINUTE_S)

    rate = await registry.service_rate("echo", NOW + MINUTE_S)

    assert rate.items == 45
    assert rate.busy_s == pytest.approx(7.0005)


async def test_very_fast_models_are_measured_too(registry: Registry) -> None:
    for _ in range(10):
        await registry.record_service(a_sample(1, 0.0003), NOW)

    assert (await registry.service_rate("echo", NOW)).seconds_per_item == pytest.approx(0.0003)


async def test_no_sample_is_lost_when_many_report_at_once(registry: Registry) -> None:
    await asyncio.gather(*(registry.record_service(a_sample(2, 0.5), NOW) for _ in range(20)))

    rate = await registry.service_rate("echo", NOW)
    assert rate.items == 40
    assert rate.busy_s == pytest.approx(10.0)


async def test_models_are_measured_apart(registry: Registry) -> None:
    await registry.record_service(a_sample(10, 2.0, "echo"), NOW)
    await registry.record_service(a_sample(1, 3.0, "smollm2"), NOW)

    echo = await registry.service_rate("echo", NOW)
    smollm2 = await registry.service_rate("smollm2", NOW)
    assert echo.seconds_per_item == pytest.approx(0.2)
    assert smollm2.seconds_per_item == pytest.approx(3.0)


async def test_the_pools_of_a_model_are_measured_apart_and_together(registry: Registry) -> None:
    await registry.record_service(a_sample(10, 2.0, pool="cpu"), NOW)
    await registry.record_service(a_sample(10, 6.0, pool="gpu"), NOW)

    assert (await registry.service_rate("echo", NOW, "cpu")) == ServiceRate(10, 2.0)
    assert (await registry.service_rate("echo", NOW, "gpu")) == ServiceRate(10, 6.0)
    assert (await registry.service_rate("echo", NOW, "neuron")) == ServiceRate(0, 0.0)
    assert (await registry.service_rate("echo", NOW)) == ServiceRate(20, 8.0)


async def test_a_pool_keeps_its_rate_while_others_work(registry: Registry) -> None:
    await registry.record_service(a_sample(10, 2.0, pool="gpu"), NOW)
    for minute in range(1, 11):
        await registry.record_service(a_sample(10, 1.0, pool="cpu"), NOW + minute * MINUTE_S)

    rate = await registry.service_rate("echo", NOW + 10 * MINUTE_S, "gpu")

    assert rate.seconds_per_item == pytest.approx(0.2)


async def test_a_pause_does_not_forget_the_rate(registry: Registry) -> None:
    await registry.record_service(a_sample(10, 2.0), NOW)

    rate = await registry.service_rate("echo", NOW + 20 * MINUTE_S)

    assert rate.seconds_per_item == pytest.approx(0.2)


async def test_an_old_rate_gives_way_to_the_latest_minutes(registry: Registry) -> None:
    await registry.record_service(a_sample(10, 1000.0), NOW)
    for minute in range(1, 11):
        await registry.record_service(a_sample(10, 1.0), NOW + minute * MINUTE_S)

    rate = await registry.service_rate("echo", NOW + 10 * MINUTE_S)

    assert rate.seconds_per_item == pytest.approx(0.1)


async def test_what_pings_took_is_a_guess_that_counts_until_work_was_measured(
    registry: Registry,
) -> None:
    await registry.record_service(a_sample(1, 0.02, pool="gpu"), 0.0)

    guess = ServiceRate(1, 0.02, is_guess=True)
    assert await registry.service_rate("echo", NOW) == guess
    assert await registry.service_rate("echo", NOW, "gpu") == guess

    await registry.record_service(a_sample(10, 30.0, pool="cpu"), NOW)

    # The rate is read anew at the latest after some seconds.
    now = NOW + MINUTE_S
    assert await registry.service_rate("echo", now) == ServiceRate(10, 30.0)
    assert await registry.service_rate("echo", now, "gpu") == guess
    assert await registry.service_rate("echo", now, "cpu") == ServiceRate(10, 30.0)


async def test_nobody_was_seen_at_first(registry: Registry) -> None:
    assert list(await registry.health()) == []


async def test_health_is_what_was_seen_last_of_each_worker(registry: Registry) -> None:
    well = a_health("gpu", "smollm2", latency_ms=3.25)
    other = a_health("cpu", "echo")
    ill = a_health(
        "gpu", "smollm2", healthy=False, checked_at=NOW + 60, detail="no answer from “gpu”"
    )
    for health in (well, other, ill):
        await registry.record_health(health)

    seen = await registry.health()

    assert sorted(seen, key=lambda health: health.pool) == [other, ill]
