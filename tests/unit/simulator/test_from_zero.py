"""The product's own policies in virtual time: from nothing to many callers and back."""

from __future__ import annotations

import pytest

from bench.simulator import from_zero
from bench.simulator.events import at_once
from bench.simulator.requests import End
from synapse.domain.job import SlaTier

CALLERS = 60
BUSY_S = 600.0


@pytest.fixture(scope="module")
def found() -> from_zero.FromZero:
    return from_zero.run(seed=3, callers=CALLERS, busy_s=BUSY_S)


def test_everybody_is_answered_once_and_nobody_refused(found: from_zero.FromZero) -> None:
    numbers = [request.number for request in found.requests]

    assert sorted(numbers) == list(range(len(numbers)))
    assert {request.end for request in found.requests} == {End.DELIVERED}
    assert sum(tier.delivered for tier in found.report.tiers.values()) == len(numbers)


def test_who_comes_when_nothing_is_up_waits_for_the_first_start(found: from_zero.FromZero) -> None:
    assert found.cold.requests >= CALLERS
    assert found.cold.p50_ms / 1000 > 180
    assert found.warm[SlaTier.GOLD].p99_ms < 250


def test_capacity_is_back_at_zero_after_the_idle_time(found: from_zero.FromZero) -> None:
    [(name, sizes)] = found.sizes.items()

    assert max(size for _, size in sizes) >= 1
    assert sizes[-1] == (found.zero_at, 0)
    # The autoscaler looks once a minute.
    assert 300 <= found.idle_s <= 300 + 2 * 60
    assert found.report.pools[name].busy_s < found.report.pools[name].paid_s


def test_the_same_seed_gives_the_same_run(found: from_zero.FromZero) -> None:
    again = from_zero.run(seed=3, callers=CALLERS, busy_s=BUSY_S)
    other = from_zero.run(seed=4, callers=CALLERS, busy_s=BUSY_S)

    assert again.report == found.report
    assert other.report != found.report


def test_whatever_takes_time_has_no_place_in_virtual_time() -> None:
    class Waits:
        def __await__(self):  # type: ignore[no-untyped-def]
            yield

    async def waits() -> None:
        await Waits()

    with pytest.raises(RuntimeError, match="waits for something"):
        at_once(waits())
