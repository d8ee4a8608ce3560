"""Seats that move: a request is counted once, in whatever pool its samples are tried."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from typing import Any

import pytest

from synapse.adapters.local.slots import SlotLedger
from synapse.application.ping import BEFORE_ALL_WORK
from synapse.application.seats import Seat, Seats, in_turn
from synapse.domain.admission import Demand
from synapse.domain.errors import EngineUnavailable, Overloaded
from synapse.domain.inference import TOKEN_IDS
from synapse.domain.job import SlaTier
from synapse.domain.model import ServiceSample
from synapse.domain.profile import Profile
from synapse.domain.routing import Decision, Need, PoolView, route
from synapse.ports import Entry
from tests.factories import a_chat_model, a_pool
from tests.fakes import MemoryRegistry
from tests.unit.application.world import CHAT, World

CHATS, GPU, CPU = a_chat_model(CHAT), a_pool("gpu"), a_pool("cpu")


class FarLedger(SlotLedger):
    """One that is asked over a network: others have their turn meanwhile."""

    async def enter(self, *args: Any, **kwargs: Any) -> Entry | None:
        """See the port."""
        await asyncio.sleep(0)
        entered = await super().enter(*args, **kwargs)
        await asyncio.sleep(0)
        return entered


async def seated(ledger: SlotLedger, world: World) -> tuple[Seats, Seat]:
    """A request of two items in the pool gpu."""
    seats = replace(world.seats, in_flight=ledger)
    decision = await world.fleet.routing.decide(CHATS, Need(SlaTier.SILVER))
    seat = await seats.take(CHATS, Demand(2, 60.0), decision, world.clock() + 60)
    return seats, seat


def a_world() -> tuple[World, FarLedger]:
    world = World(registry=MemoryRegistry([CHATS], [GPU, CPU]))
    return world, FarLedger(world.clock)


async def test_samples_that_move_at_the_same_time_are_counted_once() -> None:
    world, ledger = a_world()
    seats, seat = await seated(ledger, world)

    await asyncio.gather(*(seats.move(seat, CHATS, CPU, 8) for _ in range(2)))

    assert (seat.entry.pool, ledger.in_flight(CHAT)) == ("cpu", 2)


async def test_a_request_that_has_left_is_not_counted_again_where_it_was_going() -> None:
    world, ledger = a_world()
    seats, seat = await seated(ledger, world)

    moving = asyncio.create_task(seats.move(seat, CHATS, CPU, 8))
    await asyncio.sleep(0)
    await seats.leave(seat)
    await moving

    assert ledger.in_flight(CHAT) == 0


async def test_a_pool_that_is_up_but_cannot_run_a_request_does_not_count_as_up() -> None:
    able = a_pool("cpu", endpoint="", min_workers=0, max_workers=4, startup_s=50.0)
    world = World(registry=MemoryRegistry([CHATS], [a_pool("gpu", extensions=frozenset()), able]))
    need = Need(SlaTier.SILVER, requires=TOKEN_IDS)
    decision = await world.fleet.routing.decide(CHATS, need)

    seat = await world.seats.take(CHATS, Demand(1, 10.0), decision, world.clock() + 60)

    assert (seat.entry.pool, seat.is_held) == ("cpu", False)


STARTING = a_pool("gpu", endpoint="", min_workers=0, max_workers=1)


def between_slow_and_starting(starts_in_s: float, waiting_there: int = 0) -> Decision:
    """A pool that is up, whose items take 10 s, and a fast one that starts."""
    fast = Profile(CHAT, "1", "gpu", "gpu", 20.0)
    slow = Profile(CHAT, "1", "cpu", "cpu", 10_000.0)
    return route(
        Need(SlaTier.SILVER),
        [
            PoolView(CPU, 2, 1, in_flight=20, profile=slow),
            PoolView(
                *(STARTING, 2, 0, 1), starts_in_s=starts_in_s, in_flight=waiting_there, profile=fast
            ),
        ],
    )


def test_a_pool_that_would_answer_later_than_a_worker_that_starts_is_tried_last() -> None:
    soon, far = (in_turn(between_slow_and_starting(seconds)) for seconds in (30.0, 900.0))

    assert [pool.name for pool in soon] == ["gpu", "cpu"]
    assert [pool.name for pool in far] == ["cpu", "gpu"]


async def test_whoever_is_answered_in_time_by_a_worker_that_starts_is_held_for_it() -> None:
    world, ledger = a_world()
    seats = replace(world.seats, in_flight=ledger)
    patient, hasty = Demand(1, 60.0), Demand(1, 20.0)
    decision, until = between_slow_and_starting(30.0, waiting_there=500), world.clock() + 60
    for _ in range(40):
        seat = await seats.take(CHATS, patient, decision, until)
        assert (seat.entry.pool, seat.is_held) == ("gpu", True)
    assert seat.due_at == pytest.approx(world.clock() + 35.0, abs=1.0)

    # Of the slow pool nothing was measured yet: it takes a few for each slot.
    seat = await seats.take(CHATS, hasty, decision, until)

    assert (seat.entry.pool, seat.is_held) == ("cpu", False)


async def test_nobody_is_held_whom_a_worker_that_starts_would_answer_too_late() -> None:
    world, ledger = a_world()
    seats = replace(world.seats, in_flight=ledger)
    await world.registry.record_service(ServiceSample(CHAT, "cpu", 1, 10.0), world.clock())
    hasty, decision = Demand(1, 20.0), between_slow_and_starting(30.0)
    until = world.clock() + 60

    with pytest.raises(Overloaded):
        for _ in range(100):
            seat = await seats.take(CHATS, hasty, decision, until)
            assert seat.entry.pool == "cpu"


async def test_who_is_held_moves_only_where_it_is_answered_before() -> None:
    world, ledger = a_world()
    seats = replace(world.seats, in_flight=ledger)
    await world.registry.record_service(ServiceSample(CHAT, "cpu", 1, 10.0), world.clock())
    decision, until = between_slow_and_starting(30.0), world.clock() + 600
    held = [await seats.take(CHATS, Demand(1, 600.0), decision, until) for _ in range(10)]

    moved = 0
    for seat in held:
        try:
            await seats.move(seat, CHATS, CPU, 2)
            moved += 1
        except EngineUnavailable:
            break

    # Two at once, 10 s each: six are answered there within 30 s, and a seventh is not.
    assert moved == 6


async def test_a_pool_that_has_come_up_just_now_takes_whom_its_profile_says_it_answers() -> None:
    world, ledger = a_world()
    seats, until = replace(world.seats, in_flight=ledger), world.clock() + 60
    profile = Profile(CHAT, "1", "gpu", "gpu", 1000.0)

    async def taken(in_flight: int) -> bool:
        """One who has 20 s, where two at once take a second and nothing was measured."""
        view = PoolView(STARTING, 2, 1, in_flight=in_flight, profile=profile)
        decision = route(Need(SlaTier.SILVER), [view])
        try:
            await seats.take(CHATS, Demand(1, 20.0), decision, until)
        except Overloaded:
            return False
        return True

    # More than four a slot, the guess where there is no profile.
    assert all([await taken(10) for _ in range(20)])
    assert not await taken(100)


async def let_in(world: World, *, output_tokens: int = 200) -> int:
    """How many of a thousand who come at once to one pool of eight slots, with a minute each."""
    decision = await world.fleet.routing.decide(
        CHATS, Need(SlaTier.SILVER, output_tokens=output_tokens, first_token_only=True)
    )
    admitted = 0
    for _ in range(1000):
        with contextlib.suppress(Overloaded):
            await world.seats.take(CHATS, Demand(1, 60.0), decision, world.clock() + 60)
            admitted += 1
    return admitted


async def test_a_ping_does_not_tell_how_many_generations_are_answered_in_time() -> None:
    world = World(registry=MemoryRegistry([CHATS], [GPU]))
    unmeasured = await let_in(World(registry=MemoryRegistry([CHATS], [GPU])))

    await world.registry.record_service(ServiceSample(CHAT, "gpu", 1, 0.02), BEFORE_ALL_WORK)
    pinged = await let_in(world)

    assert pinged == unmeasured == 4 * CHATS.slots


async def test_a_profile_tells_it_beside_pings() -> None:
    world = World(registry=MemoryRegistry([CHATS], [GPU]))
    await world.fleet.windows.companies.profiles.keep(
        Profile(CHAT, "1", "gpu", "gpu", base_ms=10.0)
    )
    await world.registry.record_service(ServiceSample(CHAT, "gpu", 1, 0.02), BEFORE_ALL_WORK)

    assert await let_in(world) == 1000
