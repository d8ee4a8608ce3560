"""Scenario 3: what `python -m bench --only tiers` measures on one machine, predicted.

The same pools, the same callers at the same moments, the same phases.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from bench.simulator.events import Events
from bench.simulator.facts import ONE_MACHINE, Delay
from bench.simulator.machine import Pace
from bench.simulator.pools import Kind, Pools
from bench.simulator.report import quantile
from bench.simulator.requests import End, Request
from bench.simulator.system import Synapse
from bench.tiers import SETTLE_S, TWO_POOLS, WARM_UP_S
from synapse.domain.batching import BatchPolicy
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool

MODEL = ModelSpec("echo", "1", Task.TEXT, 4096, 0, 16, BatchPolicy(64, 1_000_000))
POOLS = (("fast", 2.0, 3, 0.020), ("slow", 0.2, 6, 0.060))
"""As `bench.tiers.TWO_POOLS` declares them: name, price an hour, slots, seconds an item."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """By tier: p50 and p99 in milliseconds and the share kept, without and with bronze."""

    alone: Mapping[SlaTier, tuple[float, float, float]]
    beside: Mapping[SlaTier, tuple[float, float, float]]
    bronze_alone_per_s: float
    bronze_beside_per_s: float


class _Load:
    """Callers and a backlog, as the load generator makes them."""

    def __init__(self, chance: random.Random) -> None:
        self.events = Events()
        kinds = [self._kind(*each) for each in POOLS]
        pools = Pools(self.events, chance, kinds)
        self.system = Synapse(self.events, chance, pools, [MODEL], ONE_MACHINE, is_profiled=False)
        for kind in kinds:
            pools.resize(kind, 1, at_once=True)
        self.requests: list[Request] = []

    @staticmethod
    def _kind(name: str, price_usd: float, slots: int, item_s: float) -> Kind:
        pool = Pool(name, "cpu", price_per_hour_usd=price_usd, slots={MODEL.name: slots})
        work = Delay(item_s, item_s * 1.05, "bench.tiers, and what a sleep takes longer: E")
        return Kind(pool, Pace(slots, company=0.0), Delay(5.0, 6.0, "not used"), {"echo": work})

    def ask(self, tier: SlaTier) -> None:
        """One more request."""
        request = Request(
            len(self.requests), MODEL.name, tier, self.events.now, self.system.chance.gauss(0, 1)
        )
        self.requests.append(request)
        self.system.arrive(request)

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


def predict(seconds: float = 8.0, rounds: int = 3, seed: int = 1) -> Predicted:
    """The same phases as `bench.tiers.measure`."""
    load = _Load(random.Random(seed))
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
    for number in range(rounds):
        without += load.phase(seconds, number + 1)
        load.backlog(alone_per_s * (SETTLE_S + seconds))
        load.phase(SETTLE_S, 0)
        before = load.done()
        beside += load.phase(seconds, number + 1)
        bronze += load.done() - before
        load.drain()
    return Predicted(_tiers(without), _tiers(beside), alone_per_s, bronze / seconds / rounds)


def _tiers(requests: list[Request]) -> dict[SlaTier, tuple[float, float, float]]:
    found = {}
    for tier, promise_ms in ((SlaTier.GOLD, 50.0), (SlaTier.SILVER, 150.0)):
        took_ms = sorted(each.took_s * 1000 for each in requests if each.tier is tier)
        kept = sum(each <= promise_ms for each in took_ms) / len(took_ms)
        found[tier] = (quantile(took_ms, 0.5), quantile(took_ms, 0.99), kept)
    return found
