"""Feeds the batcher from the local queue: at once while a worker is idle, gathering while busy."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from synapse.adapters.local.batch_starter import InProcessBatchStarter
from synapse.adapters.local.queue import LocalJobQueue
from synapse.adapters.local.slots import SlotLedger
from synapse.application.dispatch import Dispatcher, need_of_jobs
from synapse.application.windows import BronzeWindows
from synapse.domain.batching import JobMessage, gather_for_s
from synapse.domain.errors import Unavailable
from synapse.domain.extension import NO_EXTENSIONS, Extensions
from synapse.domain.inference import TOKEN_IDS
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.routing import Candidate, Decision
from synapse.domain.starting import startable
from synapse.ports import Clock

logger = logging.getLogger(__name__)

PAUSE_S = 1.0
"""Before planning again after a failure to plan or start."""

WITHDRAWN_AT_A_TIME = 500
"""Jobs of a model that is served no more, of which as many are ended between two pauses."""

LOOK_AGAIN_S = 0.2
"""How soon a lane without a free slot looks for workers that have come up since."""


@dataclass(slots=True)
class DispatchLoop:
    """A lane for each model, tier and what is required of engines: none holds up another.

    A lane starts its jobs in the pools that the router names, as far as there are free slots: for
    bronze those inside its window. A pool without a worker that is up and answers has none, so jobs
    wait in the queue until it has. Of lanes that wait for the same slot the better tier's is first.

    Jobs that were on a worker when it went down (suspects) run in a lane of their own, one at a
    time: if one of them is what kills workers, it takes no suspect down with it again. Jobs
    of a model that is served no more are ended. Whatever goes wrong, a lane goes on: the record of
    a job that it cannot start stands.
    """

    queue: LocalJobQueue
    dispatcher: Dispatcher
    windows: BronzeWindows
    slots: SlotLedger
    starter: InProcessBatchStarter
    clock: Clock
    _suspects: deque[JobMessage] = field(default_factory=deque)
    _suspect_waits: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, specs: Sequence[ModelSpec]) -> None:
        """Dispatch until cancelled."""
        async with asyncio.TaskGroup() as lanes:
            lanes.create_task(self._suspect_lane(specs), name="dispatch-suspects")
            lanes.create_task(self._withdrawn_lane(specs), name="dispatch-withdrawn")
            for spec in specs:
                for tier, requires in product(SlaTier, (NO_EXTENSIONS, TOKEN_IDS)):
                    name = "-".join(("dispatch", spec.name, tier, *requires))
                    lanes.create_task(self._lane(spec, tier, requires), name=name)

    async def _lane(self, spec: ModelSpec, tier: SlaTier, requires: Extensions) -> None:
        while True:
            try:
                await self._turn(spec, tier, requires)
            except Exception:
                logger.exception("dispatching failed", extra={"model": spec.name, "tier": tier})
                await asyncio.sleep(PAUSE_S)

    async def _turn(self, spec: ModelSpec, tier: SlaTier, requires: Extensions) -> None:
        """Start what waits, as far as there are free slots: those of direct requests are not."""
        await self.queue.wait(spec.name, tier, requires=requires)
        await self._gather(spec, tier, requires)
        oldest = self.queue.oldest(spec.name, tier, requires)
        if oldest is None:
            return
        decision = await self._decision(spec, oldest)
        rooms = await self._rooms(spec, tier, decision)
        pools = startable(decision, rooms, tier)
        if not pools:
            await self.slots.wait_freed(spec.name, tier, LOOK_AGAIN_S)
            return
        limit = min(rooms[pools[0].name], 4 * spec.batch.max_items)
        messages = self.queue.take(spec.name, tier, limit, requires)
        self._set_suspects_aside(messages)
        unsuspected = [message for message in messages if not message.is_suspect]
        await self._dispatch(unsuspected, replace(decision, pools=pools))

    async def _gather(self, spec: ModelSpec, tier: SlaTier, requires: Extensions) -> None:
        """Return when what waits should leave."""
        oldest = self.queue.oldest(spec.name, tier, requires)
        if oldest is None:
            return
        waiting = self.queue.waiting(spec.name, tier, requires)
        in_flight = self.slots.in_flight(spec.name)
        delay_s = gather_for_s(waiting, self.clock() - oldest.sent_at, in_flight, spec.batch)
        if delay_s > 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self.queue.wait(spec.name, tier, spec.batch.max_items, requires)

    async def _decision(self, spec: ModelSpec, message: JobMessage) -> Decision:
        return await self.dispatcher.at_once()(spec, need_of_jobs(spec, [message], self.clock()))

    async def _rooms(self, spec: ModelSpec, tier: SlaTier, decision: Decision) -> dict[str, int]:
        """The free slots of the pools that are given work now."""
        takers = decision.takers()
        return {each.pool.name: await self._room(spec, tier, each) for each in takers}

    async def _room(self, spec: ModelSpec, tier: SlaTier, candidate: Candidate) -> int:
        pool = candidate.pool
        if tier is SlaTier.BRONZE:
            ready = candidate.slots // pool.slots_of(spec)
            return await self.windows.room(spec, pool, ready)
        return max(0, candidate.slots - self.slots.in_flight(spec.name, pool.name))

    def _set_suspects_aside(self, messages: Sequence[JobMessage]) -> None:
        self._suspects.extend(message for message in messages if message.is_suspect)
        if self._suspects:
            self._suspect_waits.set()

    async def _dispatch(self, messages: Sequence[JobMessage], decision: Decision) -> None:
        if not messages:
            return
        try:
            await self.dispatcher.dispatch(messages, decision)
        except Unavailable as error:
            logger.warning("batches not started: %s", error.message)
            await asyncio.sleep(PAUSE_S)
            self.queue.put_back(messages)
        except Exception:
            logger.exception("batches not started; their jobs are tried one by one")
            await asyncio.sleep(PAUSE_S)
            await self._dispatch_each(messages, decision)

    async def _dispatch_each(self, messages: Sequence[JobMessage], decision: Decision) -> None:
        """Start each by itself: one that cannot be is left to the sweeper and spares the others."""
        for message in messages:
            try:
                await self.dispatcher.dispatch([message], decision)
            except Unavailable:
                self.queue.put_back([message])
            except Exception:
                logger.exception("job not started", extra={"job": message.job_id})

    async def _withdrawn_lane(self, specs: Sequence[ModelSpec]) -> None:
        """End what waits for models that are served no more: no other lane would meet it."""
        served = {spec.name for spec in specs}
        while True:
            for kind in self.queue.waiting_by_kind():
                if kind[0] not in served:
                    await self._end_withdrawn(*kind)
            await asyncio.sleep(PAUSE_S)

    async def _end_withdrawn(self, model: str, tier: SlaTier, requires: Extensions) -> None:
        messages = self.queue.take(model, tier, WITHDRAWN_AT_A_TIME, requires)
        try:
            await self.dispatcher.plan(messages)
        except Exception:
            logger.exception("jobs of a withdrawn model not ended", extra={"model": model})
            self.queue.put_back(messages)

    async def _suspect_lane(self, specs: Sequence[ModelSpec]) -> None:
        served = {spec.name: spec for spec in specs}
        while True:
            await self._suspect_waits.wait()
            while self._suspects:
                message = self._suspects.popleft()
                if not await self._run_suspect(message, served[message.model]):
                    self._suspects.append(message)
                    await asyncio.sleep(LOOK_AGAIN_S)
            self._suspect_waits.clear()

    async def _run_suspect(self, message: JobMessage, spec: ModelSpec) -> bool:
        """Whether it had its turn, is back in the queue or left to the sweeper; False: once more.

        In the queue it is seen by those who start workers and have models loaded.
        """
        try:
            decision = await self._decision(spec, message)
            takers = {candidate.pool.name for candidate in decision.takers()}
            pools = tuple(pool for pool in decision.pools if pool.name in takers)
            if not pools:
                self.queue.put_back([message])
                await asyncio.sleep(LOOK_AGAIN_S)
                return True
            plan = await self.dispatcher.plan([message], replace(decision, pools=pools))
            for order in plan.orders:
                await self.starter.run(order)
        except Unavailable as error:
            logger.warning("suspect not run: %s", error.message)
            await asyncio.sleep(PAUSE_S)
            return False
        except Exception:
            # Its record stands; the sweeper sends it again.
            logger.exception("suspect not run", extra={"job": message.job_id})
            await asyncio.sleep(PAUSE_S)
        return True
