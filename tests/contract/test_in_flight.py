"""InFlight: never more than the limit, each entry counted until it is left or has expired."""

from __future__ import annotations

import asyncio

from synapse.domain.job import SlaTier
from synapse.domain.window import Traffic
from synapse.ports import Entry, InFlight
from tests.fakes import FakeClock

MINUTE_S = 60.0
SOON_S = 60.0
LATER_S = 600.0
ROUNDED_UP_BY_S = 60.0


async def entered(
    counts: InFlight,
    clock: FakeClock,
    items: int = 1,
    limit: int = 100,
    model: str = "echo",
    pool: str = "cpu",
) -> Entry:
    entry = await counts.enter(model, pool, items, limit, clock() + SOON_S)
    assert entry is not None
    return entry


async def test_nothing_is_in_flight_at_first(in_flight: InFlight) -> None:
    assert await in_flight.count("echo", "cpu") == 0


async def test_an_entry_says_what_it_holds_and_how_many_are_ahead(
    in_flight: InFlight, clock: FakeClock
) -> None:
    first = await entered(in_flight, clock, items=3)
    second = await entered(in_flight, clock, items=2)

    assert (first.model, first.pool, first.items, first.ahead) == ("echo", "cpu", 3, 0)
    assert clock() + SOON_S <= first.expires_at <= clock() + SOON_S + ROUNDED_UP_BY_S
    assert (second.items, second.ahead) == (2, 3)
    assert first.id != second.id
    assert await in_flight.count("echo", "cpu") == 5


async def test_the_limit_is_reached_and_never_passed(in_flight: InFlight, clock: FakeClock) -> None:
    await entered(in_flight, clock, items=3, limit=4)

    assert await in_flight.enter("echo", "cpu", 2, 4, clock() + SOON_S) is None
    assert await in_flight.count("echo", "cpu") == 3
    assert await in_flight.enter("echo", "cpu", 1, 4, clock() + SOON_S) is not None
    assert await in_flight.enter("echo", "cpu", 1, 4, clock() + SOON_S) is None


async def test_each_newcomer_has_a_limit_of_its_own(in_flight: InFlight, clock: FakeClock) -> None:
    await entered(in_flight, clock, items=8, limit=8)

    assert await in_flight.enter("echo", "cpu", 1, 8, clock() + SOON_S) is None
    assert await in_flight.enter("echo", "cpu", 1, 20, clock() + SOON_S) is not None


async def test_who_leaves_makes_room(in_flight: InFlight, clock: FakeClock) -> None:
    entry = await entered(in_flight, clock, items=2, limit=2)

    await in_flight.leave(entry)

    assert await in_flight.count("echo", "cpu") == 0
    assert (await entered(in_flight, clock, items=2, limit=2)).ahead == 0


async def test_leaving_twice_frees_nothing_of_others(in_flight: InFlight, clock: FakeClock) -> None:
    entry = await entered(in_flight, clock, items=2)
    await entered(in_flight, clock, items=3)

    await in_flight.leave(entry)
    await in_flight.leave(entry)

    assert await in_flight.count("echo", "cpu") == 3


async def test_models_are_counted_apart(in_flight: InFlight, clock: FakeClock) -> None:
    await entered(in_flight, clock, items=2, limit=2, model="echo")
    await entered(in_flight, clock, items=1, limit=1, model="smollm2")

    assert await in_flight.count("echo", "cpu") == 2
    assert await in_flight.count("smollm2", "cpu") == 1


async def test_the_pools_of_a_model_are_counted_apart(
    in_flight: InFlight, clock: FakeClock
) -> None:
    slow = await entered(in_flight, clock, items=2, limit=2, pool="cpu")
    fast = await entered(in_flight, clock, items=1, limit=1, pool="gpu")

    assert (slow.ahead, fast.ahead, fast.pool) == (0, 0, "gpu")
    await in_flight.leave(slow)
    assert await in_flight.count("echo", "cpu") == 0
    assert await in_flight.count("echo", "gpu") == 1


async def test_bronze_is_told_apart_and_what_better_tiers_had_is_remembered(
    in_flight: InFlight, clock: FakeClock
) -> None:
    async def enter(items: int, tier: SlaTier) -> Entry:
        entry = await in_flight.enter("echo", "cpu", items, 100, clock() + LATER_S, tier)
        assert entry is not None
        assert entry.tier is tier
        return entry

    bronze = await enter(5, SlaTier.BRONZE)
    assert await in_flight.traffic_of("echo", "cpu") == Traffic(0, 5, 0, SlaTier.BRONZE)

    silver = await enter(2, SlaTier.SILVER)
    assert await in_flight.traffic_of("echo", "cpu") == Traffic(2, 5, 2, SlaTier.SILVER)

    gold = await enter(1, SlaTier.GOLD)
    await in_flight.leave(silver)
    assert await in_flight.traffic_of("echo", "cpu") == Traffic(1, 5, 3, SlaTier.GOLD)

    await in_flight.leave(gold)
    await in_flight.leave(bronze)
    assert await in_flight.traffic_of("echo", "cpu") == Traffic(0, 0, 3, SlaTier.GOLD)
    assert await in_flight.traffic_of("echo", "gpu") == Traffic()
    clock.advance(2 * MINUTE_S)
    assert await in_flight.traffic_of("echo", "cpu") == Traffic()


async def test_bronze_of_a_crashed_holder_comes_back_too(
    in_flight: InFlight, clock: FakeClock
) -> None:
    bronze = await in_flight.enter("echo", "cpu", 5, 100, clock() + SOON_S, SlaTier.BRONZE)
    assert bronze is not None
    clock.now = bronze.expires_at
    assert await in_flight.traffic_of("echo", "cpu") == Traffic()

    await entered(in_flight, clock, items=1)

    assert await in_flight.traffic_of("echo", "cpu") == Traffic(1, 0, 1, SlaTier.SILVER)


async def test_what_a_crashed_holder_had_comes_back(in_flight: InFlight, clock: FakeClock) -> None:
    abandoned = await entered(in_flight, clock, items=2, limit=4)
    assert await in_flight.enter("echo", "cpu", 1, 4, clock() + LATER_S) is not None

    clock.now = abandoned.expires_at

    assert await in_flight.count("echo", "cpu") == 1
    assert (await entered(in_flight, clock, items=3, limit=4)).ahead == 1


async def test_an_entry_counts_until_it_expires(in_flight: InFlight, clock: FakeClock) -> None:
    assert await in_flight.enter("echo", "cpu", 1, 1, clock() + 10) is not None

    clock.advance(9)

    assert await in_flight.enter("echo", "cpu", 1, 1, clock() + 10) is None


async def test_leaving_after_the_expiry_frees_nothing_of_others(
    in_flight: InFlight, clock: FakeClock
) -> None:
    late = await entered(in_flight, clock, items=2, limit=2)
    clock.now = late.expires_at
    await entered(in_flight, clock, items=2, limit=2)

    await in_flight.leave(late)

    assert await in_flight.count("echo", "cpu") == 2
    assert await in_flight.enter("echo", "cpu", 1, 2, clock() + SOON_S) is None


async def test_of_many_who_come_at_once_exactly_as_many_enter_as_may(
    in_flight: InFlight, clock: FakeClock
) -> None:
    expires_at = clock() + SOON_S
    entries = await asyncio.gather(
        *(in_flight.enter("echo", "cpu", 1, 8, expires_at) for _ in range(20))
    )

    let_in = [entry for entry in entries if entry is not None]
    assert sorted(entry.ahead for entry in let_in) == list(range(8))
    assert len({entry.id for entry in let_in}) == 8
    assert await in_flight.count("echo", "cpu") == 8
