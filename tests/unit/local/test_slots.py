"""SlotLedger: jobs and direct requests in the same slots."""

from __future__ import annotations

import asyncio
import time

from synapse.adapters.local.slots import SPARE_ENDS, SlotLedger
from tests.fakes import FakeClock
from tests.patience import PATIENCE_S


async def test_jobs_and_direct_requests_add_up() -> None:
    clock = FakeClock()
    slots = SlotLedger(clock)

    slots.occupy("echo", "cpu", 3)
    entry = await slots.enter("echo", "cpu", 2, 5, clock() + 60)

    assert entry is not None
    assert entry.ahead == 3
    assert slots.in_flight("echo") == 5
    assert await slots.enter("echo", "cpu", 1, 5, clock() + 60) is None
    slots.free("echo", "cpu", 1)
    assert await slots.enter("echo", "cpu", 1, 5, clock() + 60) is not None


async def woken(waiting: asyncio.Task[None]) -> bool:
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return waiting.done()


async def test_whoever_waits_for_a_slot_is_woken_by_either_lane() -> None:
    slots = SlotLedger(time.time)
    entry = await slots.enter("echo", "cpu", 1, 8, time.time() + 60)
    assert entry is not None
    slots.occupy("echo", "cpu", 1)
    waiting = [asyncio.create_task(slots.wait_freed("echo")) for _ in range(2)]
    other = asyncio.create_task(slots.wait_freed("other"))
    assert not await woken(waiting[0])

    await slots.leave(entry)
    assert [await woken(task) for task in waiting] == [True, True]

    again = asyncio.create_task(slots.wait_freed("echo"))
    assert not await woken(again)
    slots.free("echo", "cpu", 1)
    assert await woken(again)
    assert not other.done()
    other.cancel()


async def test_whoever_waits_for_a_slot_is_woken_when_an_abandoned_entry_expires() -> None:
    slots = SlotLedger(time.time)
    assert await slots.enter("echo", "cpu", 1, 8, time.time() + 0.02) is not None

    await asyncio.wait_for(slots.wait_freed("echo"), PATIENCE_S)

    assert slots.in_flight("echo") == 0


async def test_giving_up_the_wait_leaves_nothing_behind() -> None:
    slots = SlotLedger(time.time)
    waiting = asyncio.create_task(slots.wait_freed("echo"))
    assert not await woken(waiting)

    waiting.cancel()
    await asyncio.wait([waiting])

    slots.free("echo", "cpu", 0)
    assert waiting.cancelled()


async def test_the_pools_of_a_model_add_up_and_whoever_waits_hears_of_each() -> None:
    slots = SlotLedger(time.time)
    slots.occupy("echo", "fast", 2)
    slots.occupy("echo", "slow", 3)

    assert (slots.in_flight("echo"), slots.in_flight("echo", "fast")) == (5, 2)

    waiting = asyncio.create_task(slots.wait_freed("echo"))
    assert not await woken(waiting)
    slots.free("echo", "slow", 1)
    assert await woken(waiting)


async def test_entries_that_left_take_no_memory_until_they_would_have_expired() -> None:
    slots = SlotLedger(time.time)
    stays = await slots.enter("echo", "cpu", 1, 9, time.time() + 7200)
    assert stays is not None

    for _ in range(1000):
        entry = await slots.enter("echo", "cpu", 1, 9, time.time() + 3600)
        assert entry is not None
        await slots.leave(entry)

    [count] = slots._counts["echo"].values()
    assert len(count._ends) <= 2 + SPARE_ENDS
    assert slots.in_flight("echo", "cpu") == 1
