"""Rounds of the autoscaler, alone and in a closed loop with workers that take time to start."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synapse.adapters.local.demand import LocalStartTimes
from synapse.application.autoscale import HOLD_S, Autoscaler
from synapse.domain.errors import Unavailable
from synapse.domain.job import SlaTier
from synapse.domain.latency import Quantiles
from synapse.domain.load import ModelDemand, TierDemand
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool, PoolSize, WarmWindow
from synapse.domain.prediction import Live
from synapse.domain.profile import Profile
from synapse.domain.routing import PoolView
from tests.factories import a_model, a_pool
from tests.fakes import FakeClock, MemoryRegistry, RecordingTelemetry
from tests.faults import failing_before
from tests.unit.application.toy_fleet import ToyFleet

IDLE_S = 120.0


class Loop:
    """The autoscaler over the toy fleet, a round a second."""

    def __init__(self, *, startup_s: float = 8.0, per_s: int = 10, **pool: Any) -> None:
        limits = {"min_workers": 0, "max_workers": 20, "idle_after_s": IDLE_S, "endpoint": ""}
        self.clock = FakeClock()
        self.pool: Pool = a_pool(**{**limits, **pool})
        self.fleet = ToyFleet(self.pool, self.clock, startup_s=startup_s, per_s=per_s)
        self.telemetry = RecordingTelemetry()
        self.starts = LocalStartTimes()
        self.scaler = Autoscaler(
            MemoryRegistry([a_model()], [self.pool]),
            self.fleet,
            self.fleet,
            self.fleet,
            self.starts,
            self.fleet.views,
            self.telemetry,
            self.clock,
        )

    async def run(self, seconds: int, arrivals: int = 0) -> None:
        for _ in range(seconds):
            if arrivals:
                self.fleet.arrive(arrivals)
            await self.scaler.run()
            self.fleet.tick()


async def test_from_zero_to_load_and_back_to_zero() -> None:
    loop = Loop()

    loop.fleet.arrive(1000)
    await loop.run(1)
    started = loop.fleet.desired
    await loop.run(99)
    after_load = loop.fleet.desired
    await loop.run(int(IDLE_S))

    assert started >= 5
    assert loop.fleet.delivered == 1000
    assert after_load >= 1
    assert loop.fleet.desired == 0
    assert loop.fleet.taken_while_starting == 0
    assert max(loop.fleet.resized) <= 20


async def test_constant_load_settles_on_what_littles_law_says_and_stays_there() -> None:
    loop = Loop()
    await loop.run(300, arrivals=33)
    settled = loop.fleet.desired
    loop.fleet.resized.clear()

    await loop.run(600, arrivals=33)

    # 33 a second at 10 a worker, 70 % full: 5 workers.
    assert settled == loop.fleet.desired == 5
    assert loop.fleet.resized == []
    assert loop.fleet.waiting <= 33


async def test_a_lone_request_now_and_then_keeps_one_worker_warm_only_within_the_idle_time() -> (
    None
):
    loop = Loop()
    for _ in range(4):
        loop.fleet.arrive(1)
        await loop.run(int(IDLE_S) - 20)
        assert loop.fleet.desired == 1

    await loop.run(20 + 3)

    assert loop.fleet.desired == 0
    assert loop.fleet.resized == [1, 0]


@pytest.mark.parametrize(("ago_s", "is_late"), [(IDLE_S - 1, True), (IDLE_S, False)])
async def test_a_promise_is_not_kept_for_a_tier_that_nobody_asks_for_any_more(
    monkeypatch: pytest.MonkeyPatch, ago_s: float, is_late: bool
) -> None:
    loop = Loop()
    loop.fleet.desired = 1
    profile = Profile("echo", "1", "cpu", "cpu", base_ms=20.0, items_per_s=200.0)
    slow = Live(whole=Quantiles(p50=9.0, p95=10.0, p99=10.0, count=500))

    async def demand(now: float) -> Sequence[ModelDemand]:
        bronze = TierDemand(arrivals_per_s=1.0, last_at=now)
        tiers = {SlaTier.GOLD: TierDemand(last_at=now - ago_s), SlaTier.BRONZE: bronze}
        return [ModelDemand("echo", tiers)]

    async def views(spec: ModelSpec) -> Sequence[PoolView]:
        return [PoolView(loop.pool, slots=4, ready=1, profile=profile, live=slow)]

    monkeypatch.setattr(loop.fleet, "demand", demand)
    loop.scaler.views = views

    await loop.scaler.run()

    [standing] = loop.scaler.decisions()
    assert standing.load.is_late is is_late


async def test_the_time_of_a_cold_start_is_measured_from_the_demand_to_the_first_worker() -> None:
    loop = Loop(startup_s=8.0)
    loop.fleet.arrive(1)

    await loop.run(30)

    assert await loop.starts.startup_s("cpu") == pytest.approx(8.0)


async def test_hours_without_capacity_are_not_learned_as_the_time_of_a_start() -> None:
    loop = Loop(startup_s=8.0)
    await loop.starts.started("cpu", 8.0)
    loop.fleet.dry_until = loop.clock() + 7200.0
    loop.fleet.arrive(1)

    await loop.run(7200 + 30)

    # For 46 s it was waited for; of what is expected the latest start makes half.
    assert await loop.starts.startup_s("cpu") == pytest.approx((8 + 46) / 2)


async def test_a_pool_that_brings_no_worker_up_is_told_of_until_it_does() -> None:
    loop = Loop(startup_s=8.0)
    loop.fleet.dry_until = loop.clock() + 300.0
    await loop.starts.started("cpu", 8.0)
    loop.fleet.arrive(1)

    await loop.run(2 * 8 + 30)
    before = loop.scaler.stuck()
    await loop.run(5)
    after = loop.scaler.stuck()
    while not loop.fleet.ready:
        at_last = loop.scaler.stuck()
        await loop.run(1)
    await loop.scaler.run()

    # In the very round that finds a worker up.
    assert (before, after, at_last, loop.scaler.stuck()) == ([], ["cpu"], ["cpu"], [])
    await loop.run(10)
    assert loop.fleet.delivered == 1


async def test_starts_that_take_longer_than_was_thought_are_learned_one_by_one() -> None:
    loop, learned = Loop(startup_s=200.0), []
    for _ in range(6):
        loop.fleet.arrive(1)
        await loop.run(200 + int(IDLE_S) + 90)
        assert loop.fleet.desired == 0
        learned.append(await loop.starts.startup_s("cpu"))

    assert learned == sorted(learned, key=lambda each: each or 0.0)
    assert learned[-1] == pytest.approx(200.0, rel=0.1)


async def test_rounds_go_on_while_work_waits_or_workers_start_but_not_for_ever() -> None:
    loop = Loop(startup_s=25.0)

    async def sleep(seconds: float) -> None:
        for _ in range(int(seconds)):
            loop.fleet.tick()

    loop.scaler.sleep = sleep
    began_at = loop.clock()
    idle = await loop.scaler.settle(50.0, 10.0)
    after_idle = loop.clock()
    loop.fleet.arrive(5)
    started = await loop.scaler.settle(50.0, 10.0)
    after_start = loop.clock()
    loop.fleet.arrive(100_000)
    await loop.scaler.settle(50.0, 10.0)

    assert idle == []
    assert after_idle == began_at
    assert [decision.desired for decision in started] == [1]
    assert after_start == began_at + 30  # up after 25 s
    assert loop.clock() == after_start + 50
    assert await loop.starts.startup_s("cpu") == 30.0


async def test_every_change_is_told_with_its_reason_and_every_round_shows_the_workers() -> None:
    loop = Loop()
    loop.fleet.arrive(1)

    await loop.run(10)

    [(decision,)] = loop.telemetry.of("scaled")
    assert (decision.pool, decision.was, decision.desired) == ("cpu", 0, 1)
    assert loop.telemetry.of("pool_sized")[0] == ("cpu", 1, 0, 0)
    assert loop.telemetry.of("pool_sized")[-1] == ("cpu", 1, 1, 0)
    [standing] = loop.scaler.decisions()
    assert standing.pool == loop.pool
    assert (standing.size.desired, standing.size.ready) == (1, 1)
    assert standing.decision.reason


async def test_a_warm_window_keeps_workers_up_and_lets_them_go_when_it_closes() -> None:
    minute = int(FakeClock().now % 86_400 // 60)
    window = WarmWindow("echo", 2, from_minute=minute, until_minute=minute + 5)
    loop = Loop(warm=(window,))

    await loop.run(200)
    within = loop.fleet.desired
    await loop.run(200)

    assert within == 2
    assert loop.fleet.desired == 0


async def test_a_pool_that_runs_elsewhere_is_left_alone() -> None:
    loop = Loop(endpoint="gpu.example:8001")
    loop.fleet.arrive(100)

    assert await loop.scaler.run() == []
    assert loop.fleet.resized == []


async def test_a_pool_that_cannot_be_read_is_seen_to_in_the_next_round() -> None:
    loop = Loop()
    loop.fleet.arrive(10)
    loop.fleet.fails = True

    assert await loop.scaler.run() == []
    loop.fleet.fails = False
    [decision] = await loop.scaler.run()

    assert decision.desired == 1


async def test_a_round_that_cannot_see_the_demand_changes_nothing() -> None:
    loop = Loop()
    loop.fleet.arrive(10)
    loop.scaler.source = failing_before(loop.fleet, demand=[Unavailable("not now")])

    with pytest.raises(Unavailable):
        await loop.scaler.run()

    assert loop.fleet.resized == []


class TwoPools(Loop):
    """The toy fleet beside a pool whose workers never come up."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = ToyFleet(
            a_pool("broken", endpoint="", min_workers=0, max_workers=4, price_per_hour_usd=0.0),
            self.clock,
            startup_s=math.inf,
            per_s=10,
        )
        self.scaler.registry = MemoryRegistry([a_model()], [self.broken.pool, self.pool])
        self.scaler.views = self.views
        self.scaler.capacity = self

    async def views(self, spec: ModelSpec) -> list[PoolView]:
        return [*await self.broken.views(spec), *await self.fleet.views(spec)]

    async def size(self, pool: Pool) -> PoolSize:
        return await self._of(pool).size(pool)

    async def resize(self, pool: Pool, desired: int) -> None:
        await self._of(pool).resize(pool, desired)

    def _of(self, pool: Pool) -> ToyFleet:
        return self.broken if pool.name == "broken" else self.fleet


async def test_what_falls_to_a_pool_that_brings_no_worker_up_goes_to_another() -> None:
    loop = TwoPools()
    loop.fleet.arrive(100)

    await loop.run(20)
    at_first = (loop.broken.desired, loop.fleet.desired)
    await loop.run(100)
    afterwards = loop.fleet.delivered
    await loop.run(900)

    assert at_first[0] >= 1
    assert at_first[1] == 0
    assert afterwards == 100
    assert (loop.broken.desired, loop.fleet.desired) == (0, 0)


@settings(deadline=None, max_examples=30)
@given(
    bursts=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 60)), min_size=1, max_size=6),
    startup_s=st.floats(0.5, 40.0),
    max_workers=st.integers(1, 12),
)
async def test_any_load_is_delivered_within_limits_and_comes_back_to_zero(
    bursts: list[tuple[int, int]], startup_s: float, max_workers: int
) -> None:
    loop = Loop(startup_s=startup_s, max_workers=max_workers)
    for items, seconds in bursts:
        loop.fleet.arrive(items)
        await loop.run(seconds)
    total = sum(items for items, _ in bursts)
    await loop.run(total // 10 + 2 * int(startup_s) + 2 * int(IDLE_S))

    assert loop.fleet.delivered == total
    assert loop.fleet.desired == 0
    assert all(0 <= desired <= max_workers for desired in loop.fleet.resized)
    assert loop.fleet.taken_while_starting == 0


async def test_a_pool_that_is_held_has_a_worker_without_any_work() -> None:
    loop = Loop()
    await loop.run(int(IDLE_S) + 1)

    loop.scaler.hold(loop.pool.name)
    await loop.run(1)
    started = loop.fleet.desired
    await loop.run(int(HOLD_S) - 30)
    loop.scaler.hold(loop.pool.name)
    await loop.run(int(HOLD_S) - 30)
    held_again = loop.fleet.desired
    await loop.run(31)

    assert (started, held_again, loop.fleet.desired) == (1, 1, 0)
    assert max(loop.fleet.resized) == 1


async def test_another_pool_is_not_held_nor_is_any_by_a_clock_that_was_put_back() -> None:
    loop = Loop()
    loop.scaler.hold("another")
    await loop.run(1)
    assert loop.fleet.desired == 0

    loop.scaler.hold(loop.pool.name)
    loop.clock.advance(-60.0)
    await loop.run(1)
    assert loop.fleet.desired == 0
