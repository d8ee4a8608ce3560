"""Who is declared dead, and who is not yet since it was we who were asleep."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.application.fleet import Fleet
from synapse_server.mourner import Mourner
from tests.factories import NOW, a_worker
from tests.fakes import FakeClock

LEASE_S = 15.0
LOOK_EVERY_S = 1.0


class Broken:
    """Notes what is broken off."""

    def __init__(self) -> None:
        self.workers: list[str] = []

    def fleet(self) -> Fleet:
        parts: dict[str, Any] = {
            "engine": SimpleNamespace(break_off=self._break_off),
            "roster": SimpleNamespace(stale=lambda: None),
            "vitals": SimpleNamespace(renew=lambda worker: None),
        }
        return cast(Fleet, SimpleNamespace(**parts))

    def _break_off(self, worker: str, why: str) -> int:
        self.workers.append(worker)
        return 1


async def looks(mourner: Mourner, clock: FakeClock, for_s: float) -> int:
    """How many die in that time."""
    dead = 0
    for _ in range(round(for_s / LOOK_EVERY_S)):
        clock.advance(LOOK_EVERY_S)
        dead += await mourner.bury()
    return dead


async def test_a_worker_whose_lease_ends_is_dead_and_its_calls_are_broken_off() -> None:
    registry, clock, broken = LocalWorkerRegistry(), FakeClock(NOW), Broken()
    await registry.beat(a_worker("dies", lease_until=NOW + 3))
    await registry.beat(a_worker("lives", lease_until=NOW + 100))
    mourner = Mourner(registry, broken.fleet(), clock, LEASE_S)

    assert await looks(mourner, clock, 2) == 0
    assert await looks(mourner, clock, 2) == 1
    assert broken.workers == ["dies"]


@pytest.mark.parametrize("asleep_s", [LEASE_S, 3600.0])
async def test_who_beats_within_a_lease_of_our_waking_up_is_not_dead(asleep_s: float) -> None:
    registry, clock, broken = LocalWorkerRegistry(), FakeClock(NOW), Broken()
    for name in ("beats", "hangs"):
        await registry.beat(a_worker(name, lease_until=NOW + LEASE_S))
    mourner = Mourner(registry, broken.fleet(), clock, LEASE_S)
    await mourner.bury()

    clock.advance(asleep_s)
    assert await mourner.bury() == 0
    assert await looks(mourner, clock, 3) == 0  # as long as its heart may take to beat again
    await registry.beat(a_worker("beats", lease_until=clock() + 3600))

    assert await looks(mourner, clock, LEASE_S) == 1
    assert broken.workers == ["hangs"]


async def test_a_clock_that_was_put_back_after_a_leap_spares_nobody() -> None:
    registry, clock, broken = LocalWorkerRegistry(), FakeClock(NOW), Broken()
    mourner = Mourner(registry, broken.fleet(), clock, LEASE_S)
    await mourner.bury()
    clock.advance(3600.0)
    await mourner.bury()
    clock.advance(-3600.0)
    await registry.beat(a_worker("hangs", lease_until=clock() + 1))

    assert await looks(mourner, clock, 2) == 1
