"""Batches as tasks of this process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from synapse.adapters.local.slots import SlotLedger
from synapse.domain.errors import Unavailable
from synapse.domain.job import SlaTier
from synapse.ports import BatchOrder

logger = logging.getLogger(__name__)


class InProcessBatchStarter:
    """Runs each order as a task, whose items hold slots from its start to their own end."""

    def __init__(self, run: Callable[[BatchOrder], Awaitable[None]], slots: SlotLedger) -> None:
        """`run` brings an order to its end (what it raises is logged) in places of `slots`."""
        self._run = run
        self._slots = slots
        self._tasks: set[asyncio.Task[Exception | None]] = set()
        self._open_items: dict[str, int] = {}
        self._place_of: dict[str, tuple[str, str, SlaTier]] = {}
        self._closing = False

    async def start(self, orders: Sequence[BatchOrder]) -> None:
        """Start all orders.

        Raises:
            Unavailable: the server is stopping; none was started.
        """
        if self._closing:
            raise Unavailable("the server is stopping")
        for order in orders:
            self._start(order)

    async def run(self, order: BatchOrder) -> None:
        """Start an order and return once it has ended; it goes on where its caller is cancelled.

        Raises:
            Unavailable: the server is stopping; it was not started.
            Exception: whatever it ended with.
        """
        if self._closing:
            raise Unavailable("the server is stopping")
        task = self._start(order)
        await asyncio.wait([task])
        error = None if task.cancelled() else task.result()
        if error is not None:
            raise error

    def _start(self, order: BatchOrder) -> asyncio.Task[Exception | None]:
        batch = order.batch
        model, pool = batch.model, order.pools[0].name
        self._slots.occupy(model, pool, batch.slots, batch.sla)
        self._open_items[batch.id] = batch.slots
        self._place_of[batch.id] = (model, pool, batch.sla)
        task = asyncio.create_task(self._run_one(order), name=f"batch-{batch.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def begin(self, batch_id: str, items: int) -> None:
        """Note that so many items of a batch are about to run, however many had ended before."""
        place = self._place_of.get(batch_id)
        if place is None:
            return
        model, pool, tier = place
        more = items - self._open_items[batch_id]
        self._open_items[batch_id] = items
        if more > 0:
            self._slots.occupy(model, pool, more, tier)
        elif more < 0:
            self._slots.free(model, pool, -more, tier)

    def release(self, batch_id: str, items: int = 1) -> None:
        """Note that items of a batch have ended before the batch, so that others may start."""
        self.begin(batch_id, max(0, self._open_items.get(batch_id, 0) - items))

    def moved(self, batch_id: str, pool: str) -> None:
        """Note that what is left of a batch is tried in that pool now."""
        place = self._place_of.get(batch_id)
        if place is not None and place[1] != pool:
            model, before, tier = place
            items = self._open_items[batch_id]
            self._place_of[batch_id] = (model, pool, tier)
            self._slots.occupy(model, pool, items, tier)
            self._slots.free(model, before, items, tier)

    async def close(self, drain_s: float) -> None:
        """Take no more orders, wait for those that run, then cancel what is left of them."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=drain_s)
        left = list(self._tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    async def _run_one(self, order: BatchOrder) -> Exception | None:
        batch = order.batch
        try:
            await self._run(order)
        except Exception as error:
            logger.exception("batch failed", extra={"batch": batch.id, "model": batch.model})
            return error
        else:
            return None
        finally:
            model, pool, tier = self._place_of.pop(batch.id)
            self._slots.free(model, pool, self._open_items.pop(batch.id), tier)
