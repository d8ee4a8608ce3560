"""Scenario 3: what `python -m bench --only tiers` measures on one machine, predicted.

The same pools, the same callers at the same moments, the same phases.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from bench.simulator.events import Events
from bench.simulator.facts import AROUND_CALL, ONE_MACHINE, Delay, Timed
from bench.simulator.machine import Pace
from bench.simulator.pools import Kind, Pools
from bench.simulator.report import quantile
from bench.simulator.requests import End, Request
from bench.simulator.system import Synapse
from bench.tiers import SETTLE_S, SLO_MS, TWO_POOLS, WARM_UP_S
from synapse.domain.batching import BatchPolicy
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool

MODEL = ModelSpec("echo", "1", Task.TEXT, 4096, 0, 16, BatchPolicy(64, 1_000_000))
POOLS = (("fast", 2.0, 3, 0.020), ("slow", 0.2, 6, 0.060))
"""As `bench.tiers.TWO_POOLS` declares them: name, price an hour, slots, seconds an item."""

ASSUMED = "bench.tiers, and what a sleep takes longer: E"


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of the machine.

    `work` is an item on the engine of a pool that has no other, `around` what a caller waits
    besides who is alone. An item takes the server's one thread for `thread_s`, and others wait.
    """

    work: Mapping[str, Timed]
    around: Timed
    thread_s: float


E_FIGURES = Figures(
    {name: Delay(item_s, item_s * 1.05, ASSUMED) for name, _, _, item_s in POOLS},
    AROUND_CALL,
    0.0005,
)
"""Where nothing was measured."""


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

    def wait_s(self) -> float:
        """How long one would wait who comes now."""
        return max(0.0, self.free_at - self.events.now)

    def draw(self, chance: random.Random) -> float:
        """An item passes: how long it waits (`facts.Draws`)."""
        waits_s = self.wait_s()
        self.free_at = self.events.now + waits_s + self.each_s
        return waits_s


class _Load:
    """Callers and a backlog, as the load generator makes them."""

    def __init__(self, chance: random.Random, figures: Figures) -> None:
        self.events, self._chance, self._figures = Events(), chance, figures
        self._thread = _Thread(self.events, figures.thread_s)
        kinds = [self._kind(*each) for each in POOLS]
        pools = Pools(self.events, chance, kinds)
        around = replace(ONE_MACHINE, hop=self._thread)
        self.system = Synapse(self.events, chance, pools, [MODEL], around, is_profiled=False)
        for kind in kinds:
            pools.resize(kind, 1, at_once=True)
        self.requests: list[Request] = []

    def _kind(self, name: str, price_usd: float, slots: int, item_s: float) -> Kind:
        pool = Pool(name, "cpu", price_per_hour_usd=price_usd, slots={MODEL.name: slots})
        work = {MODEL.name: self._figures.work[name]}
        return Kind(pool, Pace(slots, company=0.0), Delay(5.0, 6.0, "not used"), work)

    def ask(self, tier: SlaTier) -> None:
        """One more request."""
        request = Request(
            *(len(self.requests), MODEL.name, tier, self.events.now, self._chance.gauss(0, 1)),
            ended=self._answered,
        )
        self.requests.append(request)
        self.system.arrive(request)

    def _answered(self, request: Request) -> None:
        """What lies around the call, and those whom the answer meets in the server's thread."""
        request.front_s = self._figures.around.at(request.score) + self._thread.wait_s()

    def phase(self, seconds: float, seed: int) -> list[Request]:
        """The callers of a phase of `bench.tiers`, to its end."""
        first, began_at = len(self.requests), self.events.now
        for tier, rate in TWO_POOLS.rates_per_s.items():
            draws, due = random.Random(f"{seed}-{tier}"), 0.0
            while (due := due + draws.expovariate(rate)) < seconds:
                self.events.after(due, partial(self.ask, SlaTier(tier)))
        self.events.run(began_at + seconds)
        return [each for each in self.requests[first:] if each.tier is not SlaTier.BRONZE]

    def backlog(self, jobs: float) -> None:
        """So many bronze jobs at once."""
        for _ in range(int(jobs)):
            self.ask(SlaTier.BRONZE)

    def done(self) -> int:
        """Bronze jobs that have ended."""
        return sum(r.end is End.DELIVERED for r in self.requests if r.tier is SlaTier.BRONZE)

    def drain(self) -> None:
        """Until nothing is open."""
        while any(request.end is None for request in self.requests):
            self.events.run(self.events.now + 0.1)


def predict(
    seconds: float = 8.0,
    phases: Sequence[int] = (1, 2, 3),
    seed: int = 1,
    figures: Figures = E_FIGURES,
) -> Predicted:
    """The same as `bench.tiers.measure`; `phases` are the seeds of when callers come."""
    load = _Load(random.Random(seed), figures)
    load.backlog(TWO_POOLS.bronze_per_s * (SETTLE_S + seconds))
    load.events.run(SETTLE_S)
    before = load.done()
    load.events.run(load.events.now + seconds)
    alone_per_s = (load.done() - before) / seconds
    load.drain()
    load.phase(WARM_UP_S, seed=0)
    without: list[Request] = []
    beside: list[Request] = []
    bronze = 0
    for number in phases:
        without += load.phase(seconds, number)
        load.backlog(alone_per_s * (SETTLE_S + seconds))
        load.phase(SETTLE_S, 0)
        before = load.done()
        beside += load.phase(seconds, number)
        bronze += load.done() - before
        load.drain()
    beside_per_s = bronze / seconds / len(phases)
    return Predicted(_tiers(without), _tiers(beside), alone_per_s, beside_per_s)


def _tiers(requests: list[Request]) -> dict[SlaTier, list[float]]:
    return {
        tier: sorted((r.took_s + r.front_s) * 1000 for r in requests if r.tier is tier)
        for tier in (SlaTier.GOLD, SlaTier.SILVER)
    }
