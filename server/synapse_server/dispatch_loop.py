"""Feeds the batcher from the local queue: at once while a worker is idle, gathering while busy."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from synapse.adapters.local.queue import LocalJobQueue
from synapse.adapters.local.slots import SlotLedger
from synapse.application.batcher import Batcher
from synapse.application.dispatch import Dispatcher
from synapse.domain.batching import JobMessage, gather_for_s
from synapse.domain.errors import Unavailable
from synapse.domain.model import ModelSpec
from synapse.ports import BatchOrder, Clock

logger = logging.getLogger(__name__)

PAUSE_S = 1.0
"""Before planning again after a failure to plan or start."""


@dataclass(slots=True)
class DispatchLoop:
    """One lane a model, so that a busy model never holds up another.

    Jobs that were on a worker when it went down (suspects) run in a lane of their own, one at a
    time: if one of them is what kills workers, it takes no suspect down with it again. Whatever
    goes wrong, a lane goes on: the record of a job that it cannot start stands. `worker_ready` is
    set, by model, while a worker answers for it: until then its jobs wait in the queue.
    """

    queue: LocalJobQueue
    dispatcher: Dispatcher
    slots: SlotLedger
    batcher: Batcher
    clock: Clock
    worker_ready: Mapping[str, asyncio.Event]
    _suspects: deque[JobMessage] = field(default_factory=deque)
    _suspect_waits: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, specs: Sequence[ModelSpec]) -> None:
        """Dispatch until cancelled."""
        async with asyncio.TaskGroup() as lanes:
            lanes.create_task(self._suspect_lane(), name="dispatch-suspects")
            for spec in specs:
                lanes.create_task(self._lane(spec), name=f"dispatch-{spec.name}")

    async def _lane(self, spec: ModelSpec) -> None:
        while True:
            try:
                await self._turn(spec)
            except Exception:
                logger.exception("dispatching failed", extra={"model": spec.name})
                await asyncio.sleep(PAUSE_S)

    async def _turn(self, spec: ModelSpec) -> None:
        """Start what waits, as far as there are free slots: those of direct requests are not."""
        await self.queue.wait(spec.name)
        await self.worker_ready[spec.name].wait()
        await self._gather(spec)
        free = spec.slots - self.slots.in_flight(spec.name)
        if free <= 0:
            await self.slots.wait_freed(spec.name)
            return
        messages = self.queue.take(spec.name, min(free, 4 * spec.batch.max_items))
        self._set_suspects_aside(messages)
        await self._dispatch([message for message in messages if not message.is_suspect])

    async def _gather(self, spec: ModelSpec) -> None:
        """Return when what waits should leave."""
        waiting = self.queue.waiting(spec.name)
        if waiting == 0:
            return
        in_flight = self.slots.in_flight(spec.name)
        oldest_age_s = self.queue.oldest_age_s(spec.name, self.clock())
        delay_s = gather_for_s(waiting, oldest_age_s, in_flight, spec.batch)
        if delay_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self.queue.wait(spec.name, at_least=spec.batch.max_items)

    def _set_suspects_aside(self, messages: Sequence[JobMessage]) -> None:
        self._suspects.extend(message for message in messages if message.is_suspect)
        if self._suspects:
            self._suspect_waits.set()

    async def _dispatch(self, messages: Sequence[JobMessage]) -> None:
        if not messages:
            return
        try:
            await self.dispatcher.dispatch(messages)
        except Unavailable as error:
            logger.warning("batches not started: %s", error.message)
            await asyncio.sleep(PAUSE_S)
            self.queue.put_back(messages)
        except Exception:
            logger.exception("batches not started; their jobs are tried one by one")
            await asyncio.sleep(PAUSE_S)
            await self._dispatch_each(messages)

    async def _dispatch_each(self, messages: Sequence[JobMessage]) -> None:
        """Start each by itself: one that cannot be is left to the sweeper and spares the others."""
        for message in messages:
            try:
                await self.dispatcher.dispatch([message])
            except Unavailable:
                self.queue.put_back([message])
            except Exception:
                logger.exception("job not started", extra={"job": message.job_id})

    async def _suspect_lane(self) -> None:
        while True:
            await self._suspect_waits.wait()
            while self._suspects:
                await self._run_suspect(await self._next_suspect())
            self._suspect_waits.clear()

    async def _next_suspect(self) -> JobMessage:
        """The first whose model has a worker, once there is one; it waits no more."""
        while True:
            waiting: dict[str, asyncio.Event] = {}
            for message in self._suspects:
                ready = self.worker_ready.get(message.model)
                # One whose model was withdrawn is ended, which takes no worker.
                if ready is None or ready.is_set():
                    self._suspects.remove(message)
                    return message
                waiting[message.model] = ready
            await _any_set(list(waiting.values()))

    async def _run_suspect(self, message: JobMessage) -> None:
        try:
            for order in await self.dispatcher.plan([message]):
                await self._run_alone(order)
        except Unavailable as error:
            logger.warning("suspect not run: %s", error.message)
            await asyncio.sleep(PAUSE_S)
            self._suspects.append(message)
        except Exception:
            # Its record stands; the sweeper sends it again.
            logger.exception("suspect not run", extra={"job": message.job_id})
            await asyncio.sleep(PAUSE_S)

    async def _run_alone(self, order: BatchOrder) -> None:
        place = order.batch.model, order.pools[0].name
        self.slots.occupy(*place, 1)
        try:
            await self.batcher.run(order)
        finally:
            self.slots.free(*place, 1)


async def _any_set(events: Sequence[asyncio.Event]) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
