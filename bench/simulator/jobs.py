"""Jobs of bronze: from their acceptance into the slots that better tiers leave, in batches.

Two lanes: in one jobs wait in an ordered queue, as on one machine; in the other they go round, as
on AWS (`going_round`).
"""

from __future__ import annotations

import itertools
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bench.simulator.bill import Meter
from bench.simulator.calls import Calls
from bench.simulator.events import Events, at_once
from bench.simulator.facts import Around
from bench.simulator.pools import Unit
from bench.simulator.requests import End, Request
from synapse.adapters.local.queue import LocalJobQueue
from synapse.adapters.local.slots import SlotLedger
from synapse.application.placement import Placement
from synapse.application.routing import Routing
from synapse.application.windows import BronzeWindows
from synapse.domain import cost
from synapse.domain.batching import JobMessage, plan_batches
from synapse.domain.cost import INLINE_KIB, SHORT
from synapse.domain.errors import EngineUnavailable
from synapse.domain.job import JobId, Priority, SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.reference import PAYLOADS
from synapse.domain.routing import Need
from synapse.domain.starting import startable


class System(Protocol):
    """What the lane needs of what it is part of."""

    @property
    def specs(self) -> dict[str, ModelSpec]:
        """The models by name."""
        ...

    @property
    def meter(self) -> Meter:
        """What the services cost."""
        ...

    def unit(self, worker: str) -> Unit:
        """The machine that has this worker's id."""
        ...


@dataclass(slots=True)
class JobLane(ABC):
    """What jobs go through. `queue` has those that wait, which the autoscaler sees."""

    events: Events
    chance: random.Random
    routing: Routing
    windows: BronzeWindows
    slots: SlotLedger
    queue: LocalJobQueue
    placement: Placement
    calls: Calls
    system: System
    around: Around
    _open: dict[str, Request] = field(default_factory=dict)
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    @abstractmethod
    def send(self, request: Request) -> None:
        """Write a job down and send its message."""

    @abstractmethod
    def look(self) -> None:
        """A slot was freed, or a worker has come up."""

    def opened(self, request: Request) -> JobId:
        """The job of a request, which is open from now on."""
        job_id = JobId(f"job-{request.number:08}")
        self._open[job_id] = request
        return job_id

    def request_of(self, job_id: JobId) -> Request:
        """The request of a job that is open."""
        return self._open[job_id]

    def closed(self, request: Request, end: End) -> None:
        """Its job has ended."""
        del self._open[f"job-{request.number:08}"]
        request.finish(end, self.events.now)

    def new_id(self) -> str:
        """Of a batch."""
        return f"batch-{next(self._numbers)}"

    def bucket_s(self, request: Request) -> Sequence[float]:
        """How long the prompt is on its way into the bucket and out of it; draws of its own.

        No result is so long that it lies there.
        """
        bucket = self.around.bucket
        if bucket is None or PAYLOADS.get(request.model, SHORT).prompt_kib <= INLINE_KIB:
            return 0.0, 0.0
        chance = random.Random(request.number)
        return bucket.draw(chance), bucket.draw(chance)


@dataclass(slots=True)
class OrderedLane(JobLane):
    """What `DispatchLoop` does on one machine."""

    _is_due: bool = False

    def send(self, request: Request) -> None:
        """Write a job down and send its message; it may start once a batch could be at a runner.

        The slots are not held on the way there, which takes no time to speak of.
        """
        delays = (self.around.write, self.around.deliver, self.around.batch)
        written_s = sum(delay.draw(self.chance) for delay in delays)
        written_s += sum(self.bucket_s(request))
        job_id = self.opened(request)
        deadline_at = self.events.now + request.timeout_s

        def delivered() -> None:
            message = JobMessage(
                job_id, request.model, "1", Priority.NORMAL, 1, self.events.now, deadline_at
            )
            at_once(self.queue.send([message]))
            self.look()

        self.events.after(written_s, delivered)

    def look(self) -> None:
        """Start what has room."""
        for model, spec in self.system.specs.items():
            while self.queue.waiting(model, SlaTier.BRONZE) and self._start_some(spec):
                pass
        if len(self.queue) and not self._is_due:
            self._is_due = True
            self.events.after(self.around.look_again_s, self._look_again)

    def _look_again(self) -> None:
        self._is_due = False
        self.look()

    def _start_some(self, spec: ModelSpec) -> bool:
        """Whether any job found room."""
        oldest = self.queue.oldest(spec.name, SlaTier.BRONZE)
        if oldest is None:
            return False
        need = Need(SlaTier.BRONZE, deadline_s=oldest.deadline_at - self.events.now)
        decision = at_once(self.routing.decide(spec, need))
        rooms = {
            each.pool.name: at_once(
                self.windows.room(spec, each.pool, each.slots // each.pool.slots_of(spec))
            )
            for each in decision.takers()
        }
        pools = startable(decision, rooms, SlaTier.BRONZE)
        if not pools:
            return False
        limit = min(rooms[pools[0].name], 4 * spec.batch.max_items)
        messages = self.queue.take(spec.name, SlaTier.BRONZE, limit)
        for batch in plan_batches(messages, lambda _: spec.batch, self.new_id):
            self._start_batch(spec, pools[0], [self.request_of(job_id) for job_id in batch.job_ids])
        return bool(messages)

    def _start_batch(self, spec: ModelSpec, pool: Pool, requests: Sequence[Request]) -> None:
        """A batch has its slots, and goes to a worker."""
        self.slots.occupy(spec.name, pool.name, len(requests), SlaTier.BRONZE)
        try:
            placed = at_once(self.placement.place(spec, pool))
        except EngineUnavailable:
            # Its worker went meanwhile: back into the queue.
            self.system.meter.add(cost.batch(0.0, items=0))
            self.slots.free(spec.name, pool.name, len(requests), SlaTier.BRONZE)
            for request in requests:
                self.send(request)
            return
        unit = self.system.unit(placed.worker)
        began_at, open_ones = self.events.now, len(requests)

        def one_ended() -> None:
            # Its runner waits for the last of them.
            nonlocal open_ones
            open_ones -= 1
            if not open_ones:
                ran_s = self.events.now - began_at
                self.system.meter.add(cost.batch(ran_s, items=len(requests)))

        for request in requests:
            ended = self._ended(spec, pool, request, one_ended)
            self.calls.make(spec, placed, unit, request, ended)

    def _ended(
        self, spec: ModelSpec, pool: Pool, request: Request, of_batch: Callable[[], None]
    ) -> Callable[[], None]:
        def ended() -> None:
            of_batch()
            self.slots.free(spec.name, pool.name, 1, SlaTier.BRONZE)
            request.pool = pool.name
            self.closed(request, End.DELIVERED)
            self.look()

        return ended
