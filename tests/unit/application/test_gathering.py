"""Which jobs are gathered before they are started: bronze for which there is no room."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.domain.errors import Unavailable
from synapse.domain.job import Priority, SlaTier
from tests.factories import a_message, a_model, a_pool
from tests.fakes import MemoryRegistry
from tests.unit.application.world import World


def world_of(*taken: int, **changes: str) -> World:
    """Pools of eight slots, of which so many are taken."""
    pools = [a_pool(name, **changes) for name, _ in zip(("here", "there"), taken, strict=False)]
    world = World(registry=MemoryRegistry([a_model("echo")], pools), gathers=True)
    for pool, items in zip(pools, taken, strict=True):
        world.slots.occupy("echo", pool.name, items)
    return world


async def test_bronze_without_room_is_gathered_and_then_started_together() -> None:
    world = world_of(8)
    messages = [a_message() for _ in range(3)]

    for message in messages:
        assert await world.dispatcher.dispatch([message]) == []
    assert (world.gathered, world.starter.orders) == (messages, [])

    await world.dispatcher.dispatch(messages, were_gathered=True)
    [order] = world.starter.orders
    assert order.batch.job_ids == tuple(message.job_id for message in messages)
    assert world.gathered == messages


@pytest.mark.parametrize("taken", [(7,), (8, 7), (0,)])
async def test_where_there_is_room_in_any_pool_nobody_is_kept(taken: tuple[int, ...]) -> None:
    world = world_of(*taken)

    await world.dispatcher.dispatch([a_message()])

    assert (world.gathered, len(world.starter.orders)) == ([], 1)


async def test_nor_where_no_worker_is_up() -> None:
    world = world_of(8, endpoint="")

    await world.dispatcher.dispatch([a_message()])

    assert (world.gathered, len(world.starter.orders)) == ([], 1)


@pytest.mark.parametrize(
    "changes", [{"priority": Priority.HIGH}, {"sla": SlaTier.SILVER}, {"losses": 1}]
)
async def test_who_is_to_come_first_or_rides_alone_is_not_gathered(changes: dict[str, Any]) -> None:
    world = world_of(8)
    message = a_message(**changes)

    await world.dispatcher.dispatch([message])

    [order] = world.starter.orders
    assert (world.gathered, order.batch.job_ids) == ([], (message.job_id,))


async def test_more_than_there_is_room_for_are_not_kept_from_it() -> None:
    world = world_of(7)

    await world.dispatcher.dispatch([a_message() for _ in range(3)])

    assert (world.gathered, len(world.starter.orders)) == ([], 1)


async def test_what_could_not_be_sent_on_is_delivered_again() -> None:
    world = world_of(8)

    async def away(messages: object) -> None:
        raise Unavailable("throttled")

    world._gather = away  # type: ignore[method-assign]

    with pytest.raises(Unavailable):
        await world.dispatcher.dispatch([a_message()])
