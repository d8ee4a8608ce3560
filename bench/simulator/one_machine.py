"""Scenario 3: callers and jobs on one machine, as `validation` measures them, predicted.

The same pools, the same callers and jobs at the same moments, the same phases.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from bench.simulator.events import Events
from bench.simulator.facts import AROUND_CALL, ONE_MACHINE, ByScore, Delay, Timed
from bench.simulator.machine import Pace
from bench.simulator.pools import Kind, Pools
from bench.simulator.report import quantile
from bench.simulator.requests import End, Request
from bench.simulator.system import Synapse
from bench.tiers import SETTLE_S, SLO_MS, SLOW, TWO_POOLS, PoolShape, Scenario, two_pools
from synapse.domain.batching import BatchPolicy
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool

MODEL = ModelSpec("echo", "1", Task.TEXT, 4096, 0, 16, BatchPolicy(64, 1_000_000))

BRIEF = two_pools(PoolShape("fast", 2.0, slots=2, item_ms=12), SLOW)

SCENARIOS = {"tiers": TWO_POOLS, "brief": BRIEF}
"""That of `bench.tiers`, where about a hundredth of gold is late enough for bronze to leave a slot
free, so that it does or does not by chance; and items that gold always has the time to wait for."""

ALONE_S = 2.5
"""For so long each engine is asked alone, and then the server (`calibration`)."""

PAUSE_S = 0.01
"""Between two items, so that each finds everything at rest, as one does that comes at random."""

JOBS_SETTLE_S = 1.0
JOBS_S = 3.0
"""Then there are jobs alone."""

ASSUMED = "bench.tiers, and what a sleep takes longer: E"


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of the machine.

    `work` is the call of an item on the engine of a pool that has no other, `full` of one of those
    that fill the slots of all pools, `around` what a caller waits besides who is alone. An item
    that is called, and a job that comes, takes the server's one thread for `thread_s`, and others
    wait.
    """

    work: Mapping[str, Timed]
    full: Mapping[str, Timed]
    around: Timed
    thread_s: float


def assumed(scenario: Scenario) -> Figures:
    """Where nothing was measured."""
    times = {
        pool.name: Delay(pool.item_ms / 1000, pool.item_ms * 1.05 / 1000, ASSUMED)
        for pool in scenario.shapes
    }
    return Figures(times, times, AROUND_CALL, 0.0005)


@dataclass(frozen=True, slots=True)
class Predicted:
    """By tier: the times of callers in milliseconds, sorted, without and with bronze."""

    alone: Mapping[SlaTier, list[float]]
    beside: Mapping[SlaTier, list[float]]
    bronze_alone_per_s: float
    bronze_beside_per_s: float

    def ms(self, tier: SlaTier, share: float, *, bronze_on: bool) -> float:
        """A quantile of a tier's times."""
        return quantile((self.beside if bronze_on else self.alone)[tier], share)

    def kept(self, tier: SlaTier, *, bronze_on: bool) -> float:
        """The share of a tier that was answered within its promise."""
        took_ms = (self.beside if bronze_on else self.alone)[tier]
        return sum(each <= SLO_MS[tier] for each in took_ms) / len(took_ms)


@dataclass(slots=True)
class _Thread:
    """The server's one thread: who comes waits for those before, and then takes its time.

    The time itself is in what was measured of an item alone, so only the waiting is added.
    """

    events: Events
    each_s: float
    free_at: float = 0.0

    def draw(self, chance: random.Random) -> float:
        """An item passes: how long it waits (`facts.Draws`)."""
        waits_s = max(0.0, self.free_at - self.events.now)
        self.free_at = self.events.now + waits_s + self.each_s
        return waits_s


@dataclass(frozen=True, slots=True)
class _Way(ByScore):
    """What the call of an item takes besides the item, on processors that all pools share.

    It is as for one alone, or as where all is full; between the two it is as near to one as so many
    of all slots are taken. The engine's slot is held for the item alone.
    """

    item_s: float
    alone: Timed
    full: Timed
    taken: Callable[[], float]

    def at(self, score: float) -> float:
        """See `Timed`."""
        share = self.taken()
        call_s = (1 - share) * self.alone.at(score) + share * self.full.at(score)
        return max(0.0, call_s - self.item_s)


class _Load:
    """Callers and a backlog, as the load generator makes them."""

    def __init__(self, chance: random.Random, scenario: Scenario, figures: Figures) -> None:
        self.events, self._chance = Events(), chance
        self._scenario, self._figures = scenario, figures
        self._thread = _Thread(self.events, figures.thread_s)
        kinds = [self._kind(each) for each in scenario.shapes]
        self._pools = Pools(self.events, chance, kinds)
        around = replace(ONE_MACHINE, hop=self._thread)
        self.system = Synapse(self.events, chance, self._pools, [MODEL], around, is_profiled=False)
        for kind in kinds:
            self._pools.resize(kind, 1, at_once=True)
        self.requests: list[Request] = []

    def _kind(self, shape: PoolShape) -> Kind:
        pool = Pool(
            shape.name, "cpu", price_per_hour_usd=shape.price_usd, slots={MODEL.name: shape.slots}
        )
        item_s, name = shape.item_ms / 1000, shape.name
        item = {MODEL.name: Delay(item_s, item_s, ASSUMED)}
        way = _Way(item_s, self._figures.work[name], self._figures.full[name], self._taken)
        pace = Pace(shape.slots, company=0.0)
        return Kind(pool, pace, Delay(5.0, 6.0, "not used"), item, {MODEL.name: way})

    def _taken(self) -> float:
        """The share of all slots that others have."""
        calls = sum(self.system.vitals.outstanding.values())
        return min(1.0, (calls - 1) / (sum(shape.slots for shape in self._scenario.shapes) - 1))

    def ask(self, tier: SlaTier) -> None:
        """One more request."""
        request = Request(
            *(len(self.requests), MODEL.name, tier, self.events.now, self._chance.gauss(0, 1)),
            ended=self._answered,
        )
        self.requests.append(request)
        self.system.arrive(request)

    def _answered(self, request: Request) -> None:
        """What lies around the call.

        Those whom the answer meets in the server's thread are in what calls took where all is full.
        """
        request.front_s = self._figures.around.at(request.score)

    def phase(self, seconds: float, seed: int) -> list[Request]:
        """The callers of a phase of `bench.tiers`, to its end."""
        first, began_at = len(self.requests), self.events.now
        for tier, rate in self._scenario.rates_per_s.items():
            draws = random.Random(f"{seed}-{tier}")
            self._come(rate, draws, seconds, partial(self.ask, SlaTier(tier)))
        self.events.run(began_at + seconds)
        return [each for each in self.requests[first:] if each.tier is not SlaTier.BRONZE]

    def bronze(self, seconds: float, seed: int) -> None:
        """Jobs come for so long from now on, as `bench.tiers.Load.stream` sends them."""
        self._come(self._scenario.stream_per_s, random.Random(seed), seconds, self._submit)

    def _come(
        self, per_s: float, draws: random.Random, seconds: float, comes: Callable[[], None]
    ) -> None:
        """A Poisson process from now on, for so long."""
        due = 0.0
        while (due := due + draws.expovariate(per_s)) < seconds:
            self.events.after(due, comes)

    def _submit(self) -> None:
        """A job comes to the server's thread."""
        waits_s = self._thread.draw(self._chance)
        self.events.after(waits_s, partial(self.ask, SlaTier.BRONZE))

    def done(self) -> int:
        """Bronze jobs that have ended."""
        return sum(r.end is End.DELIVERED for r in self.requests if r.tier is SlaTier.BRONZE)

    def calibrate(self, seed: int) -> None:
        """What the server sees of `calibration`: first nothing, then a caller, then jobs."""
        self.events.run(self.events.now + len(self._scenario.shapes) * ALONE_S)
        until = self.events.now + ALONE_S
        while self.events.now < until:
            self.ask(SlaTier.GOLD)
            while self.requests[-1].end is None:
                self.events.run(self.events.now + 0.001)
            self.events.run(self.events.now + PAUSE_S)
        self.bronze(JOBS_SETTLE_S + JOBS_S, seed)
        self.events.run(self.events.now + JOBS_SETTLE_S + JOBS_S)
        self.drain()

    def drain(self) -> None:
        """Until nothing is open."""
        while any(request.end is None for request in self.requests):
            self.events.run(self.events.now + 0.1)


def predict(scenario: Scenario, figures: Figures, seconds: float = 8.0, seed: int = 1) -> Predicted:
    """A round that `validation` measures; `seed` is of when its callers come."""
    load = _Load(random.Random(seed), scenario, figures)
    load.calibrate(seed)
    load.bronze(SETTLE_S + seconds, seed)
    load.events.run(load.events.now + SETTLE_S)
    before = load.done()
    load.events.run(load.events.now + seconds)
    alone_per_s = (load.done() - before) / seconds
    load.drain()
    without = load.phase(seconds, seed)
    load.bronze(SETTLE_S + seconds, seed)
    load.phase(SETTLE_S, 0)
    before = load.done()
    beside = load.phase(seconds, seed)
    beside_per_s = (load.done() - before) / seconds
    load.drain()
    return Predicted(_tiers(without), _tiers(beside), alone_per_s, beside_per_s)


def _tiers(requests: list[Request]) -> dict[SlaTier, list[float]]:
    return {
        tier: sorted((r.took_s + r.front_s) * 1000 for r in requests if r.tier is tier)
        for tier in (SlaTier.GOLD, SlaTier.SILVER)
    }
