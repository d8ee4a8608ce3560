"""Synapse on AWS: its own policies decide everything, over simulated machines and delays.

Callers on the line go through `Routing`, `Seats` and `Placement`, jobs through `plan_batches`,
`Routing`, `Openings` and the bronze windows, workers come and go as `Autoscaler` says: the very
objects that serve. What is modelled here is only the glue that awaits things in between.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.simulator.bill import Meter
from bench.simulator.calls import Calls
from bench.simulator.events import Events, at_once
from bench.simulator.facts import AWS, Around
from bench.simulator.going_round import RoundLane
from bench.simulator.jobs import JobLane, OrderedLane
from bench.simulator.pools import Pools, Unit, Usage
from bench.simulator.ports import Catalogue, Heartbeats, Nowhere, PoolCapacity, Profiles, Silence
from bench.simulator.requests import End, Request
from synapse.adapters.local.demand import LocalDemand, LocalStartTimes
from synapse.adapters.local.queue import LocalJobQueue
from synapse.adapters.local.slots import SlotLedger
from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.application.autoscale import Autoscaler
from synapse.application.cold_start import ColdStarts
from synapse.application.direct import ENTRY_GRACE_S, HOLD
from synapse.application.fleet import Fleet
from synapse.application.seats import Seat, Seats, in_turn
from synapse.application.vitals import Vitals
from synapse.domain import cost
from synapse.domain.admission import Demand
from synapse.domain.cost import SHORT
from synapse.domain.errors import EngineUnavailable, Overloaded
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.reference import PAYLOADS
from synapse.domain.routing import Decision, Need
from synapse.domain.worker import WorkerState

WAKE_PAUSE_S = 2.0
"""Calls for the autoscaler that come sooner after one another are taken for one."""

SETTLE_S = 45.0
"""So long the scale function goes on while work waits or workers start, as `functions/scale`."""


class _Waker:
    """The port `Waker`: an asynchronous invocation of the scale function.

    Many functions call it. Who calls within the pause is seen to by one more round at its end.
    """

    def __init__(self, system: Synapse) -> None:
        self._system = system
        self._next_at = float("-inf")

    async def wake(self, model: str, need: Need) -> None:
        """See the port."""
        system, now = self._system, self._system.events.now
        if self._next_at > now:
            return
        at = max(now + system.around.wake.draw(system.chance), self._next_at + WAKE_PAUSE_S)
        self._next_at = at
        system.events.after(at - now, system.scale)


class _ScaleFunction:
    """What `functions/scale` does: one at a time, round after round until all is settled."""

    def __init__(self, events: Events, autoscaler: Autoscaler, around: Around) -> None:
        self._events, self._autoscaler, self._around = events, autoscaler, around
        self._is_running = self._is_called = False

    def __call__(self) -> None:
        """An invocation: while another one runs it waits for its turn."""
        if self._is_running:
            self._is_called = True
            return
        self._is_running, self._is_called = True, False
        self._round(self._events.now + SETTLE_S)

    def _round(self, until: float) -> None:
        at_once(self._autoscaler.run())
        every_s = self._around.settle_every_s
        if not self._autoscaler.is_settled() and self._events.now + every_s <= until:
            self._events.after(every_s, lambda: self._round(until))
            return
        self._is_running = False
        if self._is_called:
            self()


@dataclass(slots=True)
class _Held:
    """A caller on the line on the way to a worker."""

    request: Request
    seat: Seat
    decision: Decision
    rounds: int = 0


class Synapse:
    """The whole of it, on AWS or with other things around it, with or without profiles."""

    def __init__(
        self,
        events: Events,
        chance: random.Random,
        pools: Pools,
        models: Sequence[ModelSpec],
        around: Around = AWS,
        *,
        is_profiled: bool = True,
    ) -> None:
        self.events, self.chance, self.pools = events, chance, pools
        self.around = around
        self.specs = {model.name: model for model in models}
        self.meter = Meter()
        # `Placement` begins at a random turn.
        random.seed(chance.random())
        clock = events.clock
        registry = Catalogue(models, [kind.pool for kind in pools.kinds])
        profiles = Profiles(pools.kinds if is_profiled else [])
        self._workers = LocalWorkerRegistry()
        self._heartbeats = Heartbeats(self._workers, models)
        slots, queue = SlotLedger(clock), LocalJobQueue()
        self.vitals = Vitals(clock)
        fleet = Fleet.over(
            Nowhere(),
            registry,
            self._workers,
            profiles,
            slots,
            clock,
            fresh_s=around.fresh_s,
            vitals=self.vitals,
        )
        self.routing, self._placement = fleet.routing, fleet.placement
        self._seats = Seats(registry, slots, fleet.windows, clock)
        demand, starts, quiet = LocalDemand(queue, clock), LocalStartTimes(), Silence()
        self.capacity = PoolCapacity(pools)
        self.autoscaler = Autoscaler(
            registry, self._workers, self.capacity, demand, starts, self.routing.views, quiet, clock
        )
        self._cold_starts = ColdStarts(
            registry, fleet.roster, self.routing.views, demand, _Waker(self), starts, quiet, clock
        )
        self._calls = Calls(events, chance, self.vitals, profiles, around.hop)
        lane = RoundLane if around.goes_round else OrderedLane
        self._jobs: JobLane = lane(
            events,
            chance,
            self.routing,
            fleet.windows,
            slots,
            queue,
            self._placement,
            self._calls,
            self,
            around,
        )
        self._units: dict[str, Unit] = {}
        pools.on_start, pools.on_up, pools.on_leaving = self._starts, self._is_up, self._leaves
        self.scale = _ScaleFunction(events, self.autoscaler, around)
        events.every(around.round_s, self.scale)

    def usage(self) -> Mapping[str, Usage]:
        """What its machines came to."""
        return self.pools.usages()

    def unit(self, worker: str) -> Unit:
        """The machine that has this worker's id."""
        return self._units[worker]

    def arrive(self, request: Request) -> None:
        """A request has come to the API."""
        spec = self.specs[request.model]
        need = Need(request.tier, deadline_s=request.timeout_s)
        if request.tier is SlaTier.BRONZE:
            payload = PAYLOADS.get(request.model, SHORT)
            self.meter.add(cost.job(payload) + cost.fetched(payload))
            cold = at_once(self._cold_starts.arrived(spec, need))
            request.was_cold = cold is not None
            self._jobs.send(request)
            return
        self.meter.add(cost.call())
        decision = at_once(self.routing.decide(spec, need))
        cold = at_once(self._cold_starts.comes(spec, need))
        request.was_cold = cold is not None
        demand = Demand(1, request.timeout_s, request.tier)
        expires_at = self.events.now + request.timeout_s + ENTRY_GRACE_S
        try:
            seat = at_once(self._seats.take(spec, demand, decision, expires_at))
        except Overloaded:
            request.finish(End.REFUSED, self.events.now)
            return
        if cold:
            at_once(self._cold_starts.wake(spec, need))
        self._try(_Held(request, seat, decision))

    def _try(self, held: _Held) -> None:
        """The pools in their turn, as `Attempts` does; after all of them, a pause."""
        request, spec = held.request, self.specs[held.request.model]
        first = held.seat.entry.pool
        turn = sorted(in_turn(held.decision), key=lambda pool: pool.name != first)
        for pool in turn:
            try:
                placed = at_once(self._placement.place(spec, pool))
                slots = held.decision.of(pool.name).slots
                at_once(self._seats.move(held.seat, spec, pool, slots))
            except EngineUnavailable:
                continue
            self._start(held, placed)
            return
        held.rounds += 1
        pause_s = HOLD.delay_s(held.rounds, self.chance.random())
        if self.events.now + pause_s >= request.arrived_at + request.timeout_s:
            at_once(self._seats.leave(held.seat))
            self.meter.add(cost.held(self.events.now - request.arrived_at))
            request.finish(End.EXPIRED, self.events.now)
            return
        self.events.after(pause_s, lambda: self._try(held))

    def _start(self, held: _Held, placed: Pool) -> None:
        sent_at = self.events.now

        def ended() -> None:
            now = self.events.now
            at_once(self._seats.leave(held.seat))
            if placed.name == held.seat.entry.pool:
                at_once(self._seats.measure(held.seat, now - sent_at))
            held.request.pool = placed.name
            self.meter.add(cost.held(now - held.request.arrived_at))
            held.request.finish(End.DELIVERED, now)
            self._jobs.look()

        spec = self.specs[held.request.model]
        self._calls.make(spec, placed, self.unit(placed.worker), held.request, ended)

    def _starts(self, unit: Unit) -> None:
        self._units[unit.id] = unit
        now = self.events.now
        at_once(self._workers.beat(self._heartbeats.beat(unit, now, WorkerState.LOADING)))

    def _is_up(self, unit: Unit) -> None:
        self._units[unit.id] = unit
        now = self.events.now
        at_once(self._workers.beat(self._heartbeats.beat(unit, now, WorkerState.READY)))
        self.events.after(self.around.fresh_s, self._jobs.look)

    def _leaves(self, unit: Unit) -> None:
        at_once(self._workers.forget(unit.id))
