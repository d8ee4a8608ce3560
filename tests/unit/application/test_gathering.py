"""Which jobs are gathered before they are started: bronze for which there is no room."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.application.gathering import AGAIN_S
from synapse.application.waiting import MOST_WAIT
from synapse.domain.batching import JobMessage
from synapse.domain.errors import Unavailable
from synapse.domain.job import Priority, SlaTier
from tests.factories import a_message, a_model, a_pool, a_sample
from tests.fakes import MemoryRegistry
from tests.faults import failing_before
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

    async def away(messages: object, delay_s: float) -> None:
        raise Unavailable("throttled")

    world._gather = away  # type: ignore[method-assign]

    with pytest.raises(Unavailable):
        await world.dispatcher.dispatch([a_message()])


BATCH = a_model("echo").batch.max_items
ITEM_S = 0.05


async def brief(*taken: int, waiting: int = 0) -> World:
    """The same, where items are over in a moment, and so many batches wait in the first pool."""
    world = world_of(*taken)
    for name in ("here", "there"):
        sample = a_sample(10, 10 * ITEM_S, pool=name)
        await world.registry.record_service(sample, world.clock())
    world.slots.occupy("echo", "here#waiting", waiting)
    return world


def kept_before(world: World, batches: int, **changes: Any) -> list[JobMessage]:
    """Messages of so many batches, the first first."""
    now = world.clock()
    return [a_message(sent_at=now + n, **changes) for n in range(batches * BATCH)]


async def test_who_was_gathered_is_kept_on_while_all_places_are_taken() -> None:
    world = await brief(8, waiting=MOST_WAIT)
    messages = kept_before(world, 2)

    await world.dispatcher.dispatch(messages, were_gathered=True)

    assert (world.gathered, world.delays_s, world.starter.orders) == (messages, [AGAIN_S], [])


async def test_who_comes_anew_is_gathered_without_a_delay() -> None:
    world = await brief(8, waiting=MOST_WAIT)

    await world.dispatcher.dispatch([a_message()])

    assert world.delays_s == [0.0]


async def test_as_many_batches_are_started_as_find_places_and_those_who_came_first() -> None:
    world = await brief(8, waiting=MOST_WAIT - 2)
    messages = kept_before(world, 5)

    await world.dispatcher.dispatch(messages, were_gathered=True)

    started = [job for order in world.starter.orders for job in order.batch.job_ids]
    assert started == [message.job_id for message in messages[: 2 * BATCH]]
    assert world.gathered == messages[2 * BATCH :]


async def test_places_are_as_many_as_items_are_soon_done_with_and_a_job_may_have_several() -> None:
    """Eight slots are done with 80 items of half a second: two and a half batches."""
    world = world_of(8)
    await world.registry.record_service(a_sample(10, 5.0, pool="here"), world.clock())
    messages = kept_before(world, 1, items=8)

    await world.dispatcher.dispatch(messages, were_gathered=True)

    assert len(world.starter.orders) == 2
    assert len(world.gathered) == len(messages) - 2 * BATCH // 8


async def test_and_as_many_more_as_there_is_room_for() -> None:
    world = await brief(7, waiting=MOST_WAIT)

    await world.dispatcher.dispatch(kept_before(world, 3), were_gathered=True)

    assert len(world.starter.orders) == 1
    assert len(world.gathered) == 2 * BATCH


async def test_a_place_in_another_pool_will_do() -> None:
    world = await brief(8, 8, waiting=MOST_WAIT)

    await world.dispatcher.dispatch(kept_before(world, 1), were_gathered=True)

    assert (world.gathered, len(world.starter.orders)) == ([], 1)


@pytest.mark.parametrize(
    "changes", [{"priority": Priority.LOW, "sla": SlaTier.SILVER}, {"losses": 1}]
)
async def test_who_is_not_gathered_is_not_kept_on_either(changes: dict[str, Any]) -> None:
    world = await brief(8, waiting=MOST_WAIT)

    await world.dispatcher.dispatch([a_message(**changes)], were_gathered=True)

    assert (world.gathered, len(world.starter.orders)) == ([], 1)


async def test_nobody_is_kept_beyond_the_deadline() -> None:
    world = await brief(8, waiting=MOST_WAIT)
    soon, later = world.clock() + 2 * AGAIN_S, world.clock() + 2 * AGAIN_S + 1

    await world.dispatcher.dispatch([a_message(deadline_at=later)], were_gathered=True)
    assert (len(world.gathered), len(world.starter.orders)) == (1, 0)

    await world.dispatcher.dispatch([a_message(deadline_at=soon)], were_gathered=True)
    assert (len(world.gathered), len(world.starter.orders)) == (1, 1)


async def test_where_nobody_may_wait_all_are_started_as_each_finds_out_for_itself() -> None:
    """Nothing was measured."""
    world = world_of(8)

    await world.dispatcher.dispatch(kept_before(world, 2), were_gathered=True)

    assert (world.gathered, len(world.starter.orders)) == ([], 2)


async def test_where_places_cannot_be_told_all_are_started() -> None:
    world = await brief(8, waiting=MOST_WAIT)
    world.slots = failing_before(world.slots, count=[Unavailable("no table")])

    await world.dispatcher.dispatch(kept_before(world, 1), were_gathered=True)

    assert (world.gathered, len(world.starter.orders)) == ([], 1)
