"""InProcessBatchStarter: tasks that are counted, outlive their caller, and end in order."""

from __future__ import annotations

import asyncio
import gc
import logging
import time

import pytest

from synapse.adapters.local.batch_starter import InProcessBatchStarter
from synapse.adapters.local.slots import SlotLedger
from synapse.domain.errors import Unavailable
from synapse.ports import BatchOrder
from tests.factories import a_pool, an_order
from tests.patience import PATIENCE_S


class Gate:
    """A batcher whose orders end when they are let go."""

    def __init__(self) -> None:
        self.ran: list[BatchOrder] = []
        self.cancelled = 0
        self.open = asyncio.Event()

    async def run(self, order: BatchOrder) -> None:
        self.ran.append(order)
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_items_are_counted_per_model_while_they_run() -> None:
    gate = Gate()
    slots = SlotLedger(time.time)
    starter = InProcessBatchStarter(gate.run, slots)

    await starter.start([an_order("a", "b", "c"), an_order("d"), an_order("e", model="other")])
    assert slots.in_flight("echo") == 4
    assert slots.in_flight("other") == 1

    gate.open.set()
    await settle()
    assert slots.in_flight("echo") == 0


async def test_start_returns_before_the_batches_have_ended() -> None:
    slots = SlotLedger(time.time)
    starter = InProcessBatchStarter(Gate().run, slots)

    await asyncio.wait_for(starter.start([an_order()]), PATIENCE_S)

    await starter.close(drain_s=0)


async def test_a_batch_runs_on_when_nobody_else_holds_it() -> None:
    gate = Gate()
    slots = SlotLedger(time.time)
    starter = InProcessBatchStarter(gate.run, slots)
    await starter.start([an_order()])
    await settle()

    gc.collect()
    gate.open.set()
    await settle()

    assert slots.in_flight("echo") == 0


async def test_whoever_waits_for_a_place_is_woken_when_a_batch_of_the_model_ends() -> None:
    gates = {"echo": Gate(), "other": Gate()}
    slots = SlotLedger(time.time)
    starter = InProcessBatchStarter(lambda order: gates[order.batch.model].run(order), slots)
    await starter.start([an_order(), an_order(model="other")])
    waiting = asyncio.create_task(slots.wait_freed("echo"))
    await settle()

    gates["other"].open.set()
    await settle()
    assert not waiting.done()

    gates["echo"].open.set()
    await asyncio.wait_for(waiting, PATIENCE_S)


async def test_places_are_freed_item_by_item_before_the_batch_ends() -> None:
    gate = Gate()
    slots = SlotLedger(time.time)
    starter = InProcessBatchStarter(gate.run, slots)
    order = an_order("a", "b", "c")
    await starter.start([order])
    waiting = asyncio.create_task(slots.wait_freed("echo"))
    await settle()

    starter.release(order.batch.id)
    await asyncio.wait_for(waiting, PATIENCE_S)
    assert slots.in_flight("echo") == 2

    starter.release(order.batch.id, items=99)
    starter.release("no-such-batch")
    assert slots.in_flight("echo") == 0
    gate.open.set()
    await settle()
    assert slots.in_flight("echo") == 0


async def test_a_batch_that_is_tried_elsewhere_takes_its_open_items_along() -> None:
    gate = Gate()
    slots = SlotLedger(time.time)
    starter = InProcessBatchStarter(gate.run, slots)
    order = an_order("a", "b", "c", pools=(a_pool("fast"), a_pool("slow")))
    await starter.start([order])
    starter.release(order.batch.id)

    for pool in ("fast", "slow", "slow"):
        starter.moved(order.batch.id, pool)
    starter.moved("no-such-batch", "slow")

    assert (slots.in_flight("echo", "fast"), slots.in_flight("echo", "slow")) == (0, 2)
    gate.open.set()
    await settle()
    assert slots.in_flight("echo") == 0


async def test_an_error_of_a_batch_is_logged_and_frees_its_places(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(order: BatchOrder) -> None:
        raise RuntimeError("boom")

    slots = SlotLedger(time.time)
    starter = InProcessBatchStarter(fail, slots)
    with caplog.at_level(logging.ERROR):
        await starter.start([an_order()])
        await settle()

    assert "batch failed" in caplog.text
    assert slots.in_flight("echo") == 0


async def test_closing_waits_for_what_runs() -> None:
    gate = Gate()
    slots = SlotLedger(time.time)
    starter = InProcessBatchStarter(gate.run, slots)
    await starter.start([an_order()])
    asyncio.get_running_loop().call_later(0.01, gate.open.set)

    await starter.close(drain_s=5)

    assert (gate.cancelled, slots.in_flight("echo")) == (0, 0)


async def test_closing_cancels_what_does_not_end_in_time() -> None:
    gate = Gate()
    slots = SlotLedger(time.time)
    starter = InProcessBatchStarter(gate.run, slots)
    await starter.start([an_order(), an_order()])
    await settle()

    await starter.close(drain_s=0.01)

    assert (gate.cancelled, slots.in_flight("echo")) == (2, 0)


async def test_after_closing_nothing_is_taken() -> None:
    slots = SlotLedger(time.time)
    starter = InProcessBatchStarter(Gate().run, slots)
    await starter.close(drain_s=0)

    with pytest.raises(Unavailable):
        await starter.start([an_order()])


async def test_a_batch_that_is_tried_again_takes_as_many_places_as_it_has_items_yet() -> None:
    gate = Gate()
    slots = SlotLedger(time.time)
    starter = InProcessBatchStarter(gate.run, slots)
    order = an_order("a", "b", "c")
    await starter.start([order])
    for _ in order.batch.job_ids:
        starter.release(order.batch.id)

    starter.begin(order.batch.id, 2)
    starter.begin("no-such-batch", 5)
    assert slots.in_flight("echo") == 2

    waiting = asyncio.create_task(slots.wait_freed("echo"))
    await settle()
    starter.begin(order.batch.id, 1)
    await asyncio.wait_for(waiting, PATIENCE_S)
    assert slots.in_flight("echo") == 1
    gate.open.set()
    await settle()
    assert slots.in_flight("echo") == 0
