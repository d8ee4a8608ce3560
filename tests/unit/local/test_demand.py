"""What the autoscaler of one machine sees, and what wakes it."""

from __future__ import annotations

import asyncio

import pytest

from synapse.adapters.local.demand import LocalDemand, LocalStartTimes, LocalWaker
from synapse.adapters.local.queue import LocalJobQueue
from synapse.domain.extension import NO_EXTENSIONS
from synapse.domain.inference import TOKEN_IDS
from synapse.domain.job import SlaTier
from synapse.domain.load import TierDemand
from synapse.domain.routing import Need
from tests.factories import a_message
from tests.fakes import FakeClock

GOLD, BRONZE = SlaTier.GOLD, SlaTier.BRONZE


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def tier_of(demand: LocalDemand, clock: FakeClock, tier: SlaTier = GOLD) -> TierDemand:
    [model] = await demand.demand(clock())
    return model.tiers[tier]


async def test_arrivals_are_counted_over_the_last_minute_with_the_size_they_have(
    clock: FakeClock,
) -> None:
    demand = LocalDemand(LocalJobQueue(), clock)
    for n in range(60):
        demand.arrived("echo", Need(GOLD, items=2, prompt_tokens=10 * (n % 2), output_tokens=4))
        clock.advance(1.0)

    seen = await tier_of(demand, clock)

    assert seen.arrivals_per_s == pytest.approx(2.0, rel=0.05)
    assert (seen.prompt_tokens, seen.output_tokens) == (5, 4)
    assert seen.last_at == clock() - 1
    assert seen.queued == 0


async def test_arrivals_from_before_the_clock_was_put_back_count_no_more(clock: FakeClock) -> None:
    demand = LocalDemand(LocalJobQueue(), clock)
    for _ in range(60):
        demand.arrived("echo", Need(GOLD))
        clock.advance(1.0)

    clock.advance(-3600.0)
    seen = await tier_of(demand, clock)
    assert (seen.arrivals_per_s, seen.last_at) == (0.0, clock())

    demand.arrived("echo", Need(GOLD))
    clock.advance(10.0)
    later = await tier_of(demand, clock)
    assert later.arrivals_per_s == pytest.approx(0.1)
    assert later.last_at == clock() - 10


async def test_a_rate_is_known_after_a_few_seconds_and_gone_after_a_minute_without_arrivals(
    clock: FakeClock,
) -> None:
    demand = LocalDemand(LocalJobQueue(), clock)
    for _ in range(10):
        demand.arrived("echo", Need(GOLD))
    at_once = await tier_of(demand, clock)
    clock.advance(10.0)
    soon = await tier_of(demand, clock)
    clock.advance(60.0)
    later = await tier_of(demand, clock)
    clock.advance(3600.0)
    demand.arrived("echo", Need(GOLD))
    again = await tier_of(demand, clock)

    rates = [seen.arrivals_per_s for seen in (at_once, soon, later, again)]
    assert rates == [pytest.approx(2.0), pytest.approx(1.0), 0.0, pytest.approx(0.2)]
    assert later.last_at == clock() - 3670


async def test_what_waits_is_seen_with_and_without_arrivals(clock: FakeClock) -> None:
    queue = LocalJobQueue()
    demand = LocalDemand(queue, clock)
    await queue.send([a_message(), a_message(sla=GOLD), a_message(model="embed")])
    demand.arrived("echo", Need(GOLD, first_token_only=True))

    echo, embed = await demand.demand(clock())

    assert {tier: seen.queued for tier, seen in echo.tiers.items()} == {GOLD: 1, BRONZE: 1}
    assert echo.first_token_only
    assert embed.tiers == {BRONZE: TierDemand(queued=1)}


async def test_what_waits_is_asked_for_now_whenever_it_came(clock: FakeClock) -> None:
    queue = LocalJobQueue()
    demand = LocalDemand(queue, clock)
    demand.arrived("echo", Need(GOLD))
    demand.arrived("embed", Need(GOLD))
    await queue.send([a_message()])
    came_at = clock()
    clock.advance(60.0)

    assert demand.last_asked() == {"echo": clock(), "embed": came_at}


async def test_a_waker_ends_the_wait_at_once_and_once() -> None:
    waker = LocalWaker()
    loop = asyncio.get_running_loop()
    await waker.wake("echo", Need(GOLD))
    await waker.wake("echo", Need(GOLD))
    started = loop.time()

    await waker.wait(10.0)
    woken = loop.time()
    await waker.wait(0.05)

    assert woken - started < 1
    assert loop.time() - woken >= 0.04


async def test_the_latest_start_counts_half() -> None:
    starts = LocalStartTimes()
    assert await starts.startup_s("cpu") is None

    await starts.started("cpu", 10.0)
    await starts.started("cpu", 20.0)

    assert await starts.startup_s("cpu") == 15.0
    assert await starts.startup_s("gpu") is None


async def test_what_requires_an_extension_is_a_demand_of_its_own(clock: FakeClock) -> None:
    queue = LocalJobQueue()
    demand = LocalDemand(queue, clock)
    demand.arrived("echo", Need(GOLD))
    demand.arrived("echo", Need(GOLD, items=2, requires=TOKEN_IDS))
    await queue.send([a_message(requires=TOKEN_IDS)])

    plain, ids = await demand.demand(clock())

    assert (plain.requires, ids.requires) == (NO_EXTENSIONS, TOKEN_IDS)
    assert plain.tiers.keys() == {GOLD}
    assert ids.tiers[GOLD].arrivals_per_s == 2 * plain.tiers[GOLD].arrivals_per_s
    assert ids.tiers[BRONZE].queued == 1


async def test_what_waits_is_counted_in_items_as_what_arrives_is(clock: FakeClock) -> None:
    queue = LocalJobQueue()
    demand = LocalDemand(queue, clock)
    await queue.send([a_message(sla=GOLD, items=8), a_message(sla=GOLD)])
    demand.arrived("echo", Need(GOLD, items=8))
    demand.arrived("echo", Need(GOLD))

    seen = await tier_of(demand, clock)

    assert (seen.queued, 5 * seen.arrivals_per_s) == (9, 9)
