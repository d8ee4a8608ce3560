"""Batches as tasks of this process."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence

from synapse.domain.errors import Unavailable
from synapse.ports import BatchOrder

logger = logging.getLogger(__name__)


class InProcessBatchStarter:
    """Runs each order as a task, and knows how many items are in flight per model."""

    def __init__(self, run: Callable[[BatchOrder], Awaitable[None]]) -> None:
        """`run` brings an order to its end; what it raises is logged."""
        self._run = run
        self._tasks: set[asyncio.Task[None]] = set()
        self._items: Counter[str] = Counter()
        self._batches: Counter[str] = Counter()
        self._open_items: dict[str, int] = {}
        self._model_of: dict[str, str] = {}
        self._sleepers: dict[str, list[asyncio.Future[None]]] = {}
        self._closing = False

    async def start(self, orders: Sequence[BatchOrder]) -> None:
        """Start all orders.

        Raises:
            Unavailable: the server is stopping; none was started.
        """
        if self._closing:
            raise Unavailable("the server is stopping")
        for order in orders:
            batch = order.batch
            self._items[batch.model] += len(batch.job_ids)
            self._batches[batch.model] += 1
            self._open_items[batch.id] = len(batch.job_ids)
            self._model_of[batch.id] = batch.model
            task = asyncio.create_task(self._run_one(order), name=f"batch-{batch.id}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def in_flight(self, model: str) -> int:
        """Items of the model that run: those of its batches, less those that were `release`d."""
        return self._items[model]

    def batches_in_flight(self, model: str) -> int:
        """Batches of the model that run."""
        return self._batches[model]

    def release(self, batch_id: str, items: int = 1) -> None:
        """Note that items of a batch have ended before the batch, so that others may start."""
        freed = min(items, self._open_items.get(batch_id, 0))
        if freed:
            self._open_items[batch_id] -= freed
            self._free(self._model_of[batch_id], freed)

    async def wait_freed(self, model: str) -> None:
        """Return when the next item of the model ends."""
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sleepers = self._sleepers.setdefault(model, [])
        sleepers.append(sleeper)
        try:
            await sleeper
        finally:
            sleepers.remove(sleeper)

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

    async def _run_one(self, order: BatchOrder) -> None:
        batch = order.batch
        try:
            await self._run(order)
        except Exception:
            logger.exception("batch failed", extra={"batch": batch.id, "model": batch.model})
        finally:
            self._batches[batch.model] -= 1
            del self._model_of[batch.id]
            self._free(batch.model, self._open_items.pop(batch.id))

    def _free(self, model: str, items: int) -> None:
        self._items[model] -= items
        for sleeper in self._sleepers.get(model, ()):
            if not sleeper.done():
                sleeper.set_result(None)
