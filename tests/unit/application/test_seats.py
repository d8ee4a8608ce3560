"""Seats that move: a request is counted once, in whatever pool its samples are tried."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from synapse.adapters.local.slots import SlotLedger
from synapse.application.seats import Seat, Seats
from synapse.domain.admission import Demand
from synapse.domain.inference import TOKEN_IDS
from synapse.domain.job import SlaTier
from synapse.domain.routing import Need
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
