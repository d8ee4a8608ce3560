"""Where jobs that wait may start."""

from __future__ import annotations

from dataclasses import replace

import pytest

from synapse.domain.job import Priority, SlaTier, urgency
from synapse.domain.profile import Profile
from synapse.domain.routing import Decision, Need, PoolView, route
from synapse.domain.starting import startable
from tests.factories import a_pool

FAST, SLOW = a_pool("fast", price_per_hour_usd=10.0), a_pool("slow", price_per_hour_usd=1.0)


def decided(tier: SlaTier, kept: int = 1) -> Decision:
    """Between a fast dear pool (20 ms) and a slow cheap one (200 ms), both with a worker up."""
    views = [
        PoolView(
            pool,
            slots=4,
            ready=1,
            kept=kept,
            profile=Profile("echo", "1", pool.name, "cpu", base_ms, best_batch=4),
        )
        for pool, base_ms in ((FAST, 20.0), (SLOW, 200.0))
    ]
    return route(Need(tier), views)


def names(tier: SlaTier, **rooms: int) -> list[str]:
    return [pool.name for pool in startable(decided(tier), rooms, tier)]


def test_bronze_takes_the_cheapest_pool_that_has_room() -> None:
    assert names(SlaTier.BRONZE, fast=1, slow=1) == ["slow", "fast"]
    assert names(SlaTier.BRONZE, fast=1, slow=0) == ["fast"]
    assert names(SlaTier.BRONZE, fast=0, slow=0) == []


def test_bronze_waits_rather_than_pay_many_times_as_much() -> None:
    dear = a_pool("fast", price_per_hour_usd=100.0)
    views = [
        PoolView(pool, 4, 1, profile=Profile("echo", "1", pool.name, "cpu", 100.0, best_batch=4))
        for pool in (dear, SLOW)
    ]
    rented, kept = (
        route(Need(SlaTier.BRONZE), [replace(view, kept=kept) for view in views]) for kept in (0, 1)
    )

    full = {"fast": 4, "slow": 0}
    assert startable(rented, full, SlaTier.BRONZE) == ()
    assert [pool.name for pool in startable(kept, full, SlaTier.BRONZE)] == ["fast"]


def test_gold_waits_for_the_pool_that_keeps_its_promise() -> None:
    assert names(SlaTier.GOLD, fast=1, slow=4) == ["fast"]
    assert names(SlaTier.GOLD, fast=0, slow=4) == []


def test_gold_takes_what_there_is_while_no_pool_that_keeps_its_promise_is_up() -> None:
    assert names(SlaTier.GOLD, slow=4) == ["slow"]


def test_gold_waits_for_a_worker_that_starts_rather_than_take_one_that_answers_later() -> None:
    soon = a_pool("fast", endpoint="", min_workers=0, max_workers=1)
    views = [
        PoolView(soon, 4, 0, 1, starts_in_s=30.0, profile=Profile("echo", "1", "fast", "cpu", 20)),
        PoolView(SLOW, 4, 1, profile=Profile("echo", "1", "slow", "cpu", 10_000.0)),
    ]
    far = [replace(views[0], starts_in_s=300.0), views[1]]

    def started(views: list[PoolView]) -> list[str]:
        decision = route(Need(SlaTier.GOLD), views)
        return [pool.name for pool in startable(decision, {"slow": 4}, SlaTier.GOLD)]

    full = [replace(far[0], starts_in_s=30.0), replace(views[1], in_flight=40)]
    assert started(far) == started(views) == ["slow"]
    assert started(full) == []


def test_without_a_worker_nothing_starts() -> None:
    assert names(SlaTier.SILVER) == []


@pytest.mark.parametrize("better", [SlaTier.GOLD, SlaTier.SILVER])
def test_the_least_urgent_of_a_tier_comes_before_the_most_urgent_of_the_next(
    better: SlaTier,
) -> None:
    worse = list(SlaTier)[better.rank + 1]

    assert urgency(better, Priority.LOW) < urgency(worse, Priority.HIGH)
    assert urgency(better, Priority.HIGH) < urgency(better) < urgency(better, Priority.LOW)
    assert urgency(SlaTier.SILVER) == 0
