"""The runner on AWS: jobs are claimed and let in one by one, through the product's own gate.

As `application.run_batch` and `application.entrance` have it. Written anew is what lies between:
how long claims and prompts take, the engine's calls, and the bill.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from bench.simulator import round_bill
from bench.simulator.events import Events, at_once, until
from bench.simulator.jobs import JobLane
from bench.simulator.requests import End, Request
from synapse.adapters.local.slots import SlotLedger
from synapse.application.entrance import Entrance, Gate
from synapse.application.in_line import Part
from synapse.application.waiting import WaitingPlaces
from synapse.domain import cost
from synapse.domain.batching import Batch, JobMessage
from synapse.domain.cost import SHORT, Payload
from synapse.domain.errors import EngineUnavailable
from synapse.domain.inference import ModelInput
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.reference import PAYLOADS
from synapse.domain.window import Traffic
from synapse.ports import Entry, InferenceRequest

Leave = Callable[[], Coroutine[Any, Any, None]]
"""An item has its slot no more."""

ITEM = ModelInput()
"""What is in it matters to nobody here."""


def payload_of(spec: ModelSpec) -> Payload:
    """What a job of this model carries."""
    return PAYLOADS.get(spec.name, SHORT)


@dataclass(slots=True)
class Ledger:
    """The port `InFlight` as one runner sees it; it notes what is to be billed.

    Each call takes its time: who enters holds the slot meanwhile, who leaves until then.
    """

    slots: SlotLedger
    pool: str
    events: Events
    call_s: Callable[[], float]
    attempts: int = -1
    """How often it was asked whether items may enter, but for the look before they are claimed."""
    entries: int = 0
    """Items that did; others took over the slot of one that had ended."""
    waits: bool = False
    """Whether the runner was counted among those that wait."""

    async def enter(
        self,
        model: str,
        pool: str,
        items: int,
        limit: int,
        expires_at: float,
        tier: SlaTier = SlaTier.SILVER,
    ) -> Entry | None:
        """See the port."""
        entry = await self.slots.enter(model, pool, items, limit, expires_at, tier)
        if entry is not None and pool == self.pool:
            self.entries += 1
        elif entry is not None:
            self.waits = True
        await self.events.sleep(self.call_s())
        return entry

    async def leave(self, entry: Entry) -> None:
        """See the port. Nobody waits until it is done."""
        self.events.after(self.call_s(), lambda: at_once(self.slots.leave(entry)))

    async def count(self, model: str, pool: str) -> int:
        """See the port."""
        await self.events.sleep(self.call_s())
        return await self.slots.count(model, pool)

    async def traffic_of(self, model: str, pool: str) -> Traffic:
        """See the port."""
        self.attempts += 1
        await self.events.sleep(self.call_s())
        return await self.slots.traffic_of(model, pool)


@dataclass(slots=True)
class Runner:
    """One call of the runner. What was run, or has expired, it takes out of `left`."""

    lane: JobLane
    spec: ModelSpec
    pool: Pool
    left: list[JobMessage]
    begun: int = 0
    """Items that an engine was asked for."""
    _entered: int = 0
    _open: int = 0
    _claim_s: float = 0.0
    _ledger: Ledger = field(init=False)
    _last_ended: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        """With a ledger of its own."""
        lane = self.lane
        call_s = partial(lane.around.write.draw, lane.chance)
        self._ledger = Ledger(lane.slots, self.pool.name, lane.events, call_s)

    async def run(self) -> None:
        """Look, claim, and let in what finds room; until the last of it has ended."""
        lane, began_at = self.lane, self.lane.events.now
        jobs = tuple(job.job_id for job in self.left)
        batch = Batch(lane.new_id(), self.spec.name, self.spec.version, jobs, len(jobs))
        windows, clock = replace(lane.windows, in_flight=self._ledger), lane.events.clock
        entrance = Entrance(
            windows,
            self._ledger,
            WaitingPlaces(windows, self._ledger, lane.routing.registry, clock),
            clock,
            lane.events.sleep,
            lane.events.side_by_side,
        )
        try:
            async with entrance.gate(self.spec, self.pool, batch) as gate:
                claimed = self.left[: gate.most]
                await self._claim(claimed)
                await self._let_in(gate, claimed)
                if self._open:
                    await until(self._tell_of_the_last)
        except EngineUnavailable:
            pass
        self._bill(lane.events.now - began_at)

    async def _claim(self, jobs: Sequence[JobMessage]) -> None:
        """And get their prompts, side by side."""
        lane = self.lane
        for job in jobs:
            lane.queue.discard(job.job_id)
        gets_s = max(lane.bucket_s(lane.request_of(job.job_id))[1] for job in jobs)
        self._claim_s = lane.around.write.draw(lane.chance) + gets_s
        await lane.events.sleep(self._claim_s)

    async def _let_in(self, gate: Gate, jobs: Sequence[JobMessage]) -> None:
        """Each by itself, in their order; those that are not let in were claimed in vain."""
        left = {job.job_id: job for job in jobs}
        now = self.lane.events.now
        line = [[InferenceRequest(job.job_id, job.deadline_at - now, ITEM)] for job in jobs]

        def begin(part: Part, entry: Entry | None) -> None:
            self._entered += 1
            self._begin(left.pop(part[0].id), partial(gate.leave, entry))

        with suppress(EngineUnavailable):  # no worker is up any more
            await gate.let_in(line, begin)
        for each in left.values():
            self._claimed_in_vain(each)

    def _begin(self, job: JobMessage, leave: Leave) -> None:
        """It is counted, and goes to a worker unless it came too late."""
        lane, request = self.lane, self.lane.request_of(job.job_id)
        if job.deadline_at <= lane.events.now:
            at_once(leave())
            self.left.remove(job)
            lane.closed(request, End.EXPIRED)
            return
        try:
            placed = at_once(lane.placement.place(self.spec, self.pool))
        except EngineUnavailable:
            at_once(leave())
            self._claimed_in_vain(job)
            return
        self.left.remove(job)
        self.begun += 1
        self._open += 1
        unit = lane.system.unit(placed.worker)
        lane.calls.make(self.spec, placed, unit, request, partial(self._ended, request, leave))

    def _ended(self, request: Request, leave: Leave) -> None:
        at_once(leave())
        request.pool = self.pool.name
        self.lane.closed(request, End.DELIVERED)
        self._open -= 1
        if not self._open and self._last_ended is not None:
            self._last_ended()

    def _tell_of_the_last(self, go_on: Callable[[], None]) -> None:
        self._last_ended = go_on

    def _claimed_in_vain(self, job: JobMessage) -> None:
        meter = self.lane.system.meter
        self.lane.queue.send_again([job])
        meter.count("claims in vain")
        meter.add(round_bill.claimed_in_vain(payload_of(self.spec)))

    def _bill(self, seconds: float) -> None:
        """All its time; `cost.job` and `cost.batch` have what claims and prompts take."""
        meter, ledger = self.lane.system.meter, self._ledger
        if self.begun:
            meter.add(cost.batch(seconds - self._claim_s, items=self.begun))
        else:
            meter.add(round_bill.tried_in_vain(seconds))
        meter.add(round_bill.asked(ledger.attempts - ledger.entries))
        meter.add(round_bill.taken_over(self._entered - ledger.entries))
        if ledger.waits:
            meter.count("waits")
            meter.add(round_bill.counted_waiting())
