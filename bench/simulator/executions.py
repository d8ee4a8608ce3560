"""The batcher on AWS: each batch tries its pools in order, with pauses; what is left is given back.

As `statemachines/batcher.asl.json` has it, and the runner (`application.run_batch`): it looks for
room, claims as many jobs as there is room for, fetches their prompts, and each enters by itself.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from bench.simulator import round_bill
from bench.simulator.events import at_once
from bench.simulator.facts import LAMBDA_INVOKE
from bench.simulator.jobs import JobLane
from bench.simulator.requests import End, Request
from synapse.application.room_wait import BRIEF_S, LOOK_EVERY_S, MOST_WAIT, WAIT_S
from synapse.domain import cost
from synapse.domain.batching import JobMessage
from synapse.domain.cost import SHORT
from synapse.domain.errors import EngineUnavailable
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.reference import PAYLOADS
from synapse.domain.retry import RetryPolicy

RETRY = RetryPolicy(max_attempts=4, base_s=1.0, max_s=8.0)
"""Of each pool, as in `statemachines/batcher.asl.json`."""


@dataclass(slots=True)
class _Batch:
    """A batch under way: the pools that are left to be tried, and the jobs that have not run."""

    spec: ModelSpec
    pools: deque[Pool]
    left: list[JobMessage]
    failures: int = 0
    has_run: bool = False


@dataclass(slots=True)
class Executions:
    """Runs batches of a lane, and has it send the jobs again that are given back."""

    lane: JobLane
    give_back: Callable[[Sequence[JobMessage]], None]
    retry: RetryPolicy = RETRY
    _waiting: Counter[tuple[str, str]] = field(default_factory=Counter)

    def start(self, spec: ModelSpec, pools: Sequence[Pool], jobs: Sequence[JobMessage]) -> None:
        """A batch begins its way."""
        batch, lane = _Batch(spec, deque(pools), list(jobs)), self.lane
        lane.events.after(lane.around.batch.draw(lane.chance), lambda: self._try(batch))

    def _try(self, batch: _Batch) -> None:
        """The runner looks for room, and waits a moment for some."""
        self.lane.system.meter.count("tries", len(batch.left))
        self._look(batch, self._claim, self._in_vain)

    def _look(
        self,
        batch: _Batch,
        go_on: Callable[[_Batch, int], None],
        give_up: Callable[[_Batch], None],
        looks_left: int | None = None,
    ) -> None:
        """As `RoomWait.may_begin`; `looks_left` is of who waits already."""
        lane, spec, pool = self.lane, batch.spec, batch.pools[0]
        try:
            most = at_once(lane.windows.may_begin(spec, pool, SlaTier.BRONZE))
            if most == 0 and looks_left is None:
                looks_left = self._waits(spec, pool)
        except EngineUnavailable:
            most, looks_left = None, None if looks_left is None else 0
        if most == 0 and looks_left:
            lane.system.meter.add(round_bill.waited(LOOK_EVERY_S))
            again = partial(self._look, batch, go_on, give_up, looks_left - 1)
            lane.events.after(LOOK_EVERY_S, again)
            return
        self._waiting[spec.name, pool.name] -= looks_left is not None
        if most:
            go_on(batch, most)
        else:
            give_up(batch)

    def _waits(self, spec: ModelSpec, pool: Pool) -> int | None:
        """How often a runner looks that waits from now on; None if it does not wait."""
        lane, place = self.lane, (spec.name, pool.name)
        if not self._is_brief(spec, pool) or self._waiting[place] >= MOST_WAIT:
            return None
        self._waiting[place] += 1
        lane.system.meter.count("waits")
        lane.system.meter.add(round_bill.counted_waiting())
        return round(WAIT_S / LOOK_EVERY_S)

    def _is_brief(self, spec: ModelSpec, pool: Pool) -> bool:
        lane = self.lane
        rate = at_once(lane.routing.registry.service_rate(spec.name, lane.events.now, pool.name))
        return rate.seconds_per_item is not None and rate.seconds_per_item <= BRIEF_S

    def _claim(self, batch: _Batch, most: int) -> None:
        """Claim as many as there is room for and get their prompts, which takes its time."""
        lane = self.lane
        claimed = batch.left[:most]
        for job in claimed:
            lane.queue.discard(job.job_id)
        gets_s = max(lane.bucket_s(lane.request_of(job.job_id))[1] for job in claimed)
        after_s = lane.around.write.draw(lane.chance) + gets_s
        if not gets_s:
            lane.events.after(after_s, lambda: self._begin(batch, claimed))
            return

        def in_vain(batch: _Batch) -> None:
            for job in claimed:
                self._claimed_in_vain(batch, job)
            self._in_vain(batch)

        def look() -> None:
            self._look(batch, lambda batch, _: self._begin(batch, claimed), in_vain)

        lane.events.after(after_s, look)

    def _claimed_in_vain(self, batch: _Batch, job: JobMessage) -> None:
        lane = self.lane
        lane.queue.send_again([job])
        lane.system.meter.count("claims in vain")
        lane.system.meter.add(round_bill.claimed_in_vain(_payload(batch.spec)))

    def _begin(self, batch: _Batch, claimed: Sequence[JobMessage]) -> None:
        """Those enter that still have room: from here on they hold their slots."""
        lane, spec, pool = self.lane, batch.spec, batch.pools[0]
        begun: list[tuple[Request, Pool]] = []
        for job in claimed:
            request = lane.request_of(job.job_id)
            if job.deadline_at <= lane.events.now:
                batch.left.remove(job)
                lane.closed(request, End.EXPIRED)
                continue
            placed = self._entered(spec, pool)
            if placed is None:
                self._claimed_in_vain(batch, job)
                continue
            batch.left.remove(job)
            begun.append((request, placed))
        if begun:
            self._run(batch, pool, begun)
        else:
            self._in_vain(batch)

    def _entered(self, spec: ModelSpec, pool: Pool) -> Pool | None:
        """The worker of one more item of bronze, which has its slot now; None if it has none."""
        lane = self.lane
        try:
            placed = at_once(lane.placement.place(spec, pool))
        except EngineUnavailable:
            return None
        limit = at_once(lane.windows.limit(spec, pool, 1))
        if lane.slots.in_flight(spec.name, pool.name) >= limit:
            return None
        lane.slots.occupy(spec.name, pool.name, 1, SlaTier.BRONZE)
        return placed

    def _run(self, batch: _Batch, pool: Pool, begun: Sequence[tuple[Request, Pool]]) -> None:
        """The runner waits for the last of them."""
        lane, spec = self.lane, batch.spec
        began_at, open_ones = lane.events.now, len(begun)

        def ended(request: Request) -> None:
            nonlocal open_ones
            open_ones -= 1
            lane.slots.free(spec.name, pool.name, 1, SlaTier.BRONZE)
            request.pool = pool.name
            lane.closed(request, End.DELIVERED)
            if not open_ones:
                bill = cost.batch(lane.events.now - began_at, items=len(begun))
                lane.system.meter.add(bill + round_bill.executions(-batch.has_run))
                batch.has_run = True
                if batch.left:
                    self._again(batch)

        for request, placed in begun:
            unit = lane.system.unit(placed.worker)
            lane.calls.make(spec, placed, unit, request, partial(ended, request))

    def _in_vain(self, batch: _Batch) -> None:
        self.lane.system.meter.add(round_bill.tried_in_vain())
        if batch.left:
            self._again(batch)

    def _again(self, batch: _Batch) -> None:
        """After a pause, or in the next pool; what no pool could run is given back."""
        lane, pause_s = self.lane, 0.0
        batch.failures += 1
        if batch.failures < self.retry.max_attempts:
            pause_s = self.retry.delay_s(batch.failures, lane.chance.random())
            lane.system.meter.add(round_bill.paused(pause_s))
        else:
            batch.pools.popleft()
            batch.failures = 0
        after_s = pause_s + LAMBDA_INVOKE.draw(lane.chance)
        if batch.pools:
            lane.events.after(after_s, lambda: self._try(batch))
            return
        written_s = lane.around.write.draw(lane.chance)
        lane.events.after(after_s + written_s, lambda: self._give_back(batch))

    def _give_back(self, batch: _Batch) -> None:
        """Back into the queue; those whose time is up are ended, which the sweeper does."""
        lane, now = self.lane, self.lane.events.now
        for job in [job for job in batch.left if job.deadline_at <= now]:
            batch.left.remove(job)
            lane.queue.discard(job.job_id)
            lane.closed(lane.request_of(job.job_id), End.EXPIRED)
        lane.system.meter.count("given back", len(batch.left))
        payloads = [_payload(batch.spec)] * len(batch.left)
        bill = round_bill.given_back(payloads) + round_bill.executions(not batch.has_run)
        lane.system.meter.add(bill)
        if batch.left:
            self.give_back([replace(job, sent_at=now) for job in batch.left])


def _payload(spec: ModelSpec) -> cost.Payload:
    return PAYLOADS.get(spec.name, SHORT)
