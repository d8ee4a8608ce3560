"""Scenario 1: nothing runs; a thousand callers come at once; they go; nothing runs again."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from bench.simulator import facts
from bench.simulator.events import Events
from bench.simulator.fleet import kind, model
from bench.simulator.pools import Pools
from bench.simulator.report import Report, TierReport, report_of, tier_report
from bench.simulator.requests import Request
from bench.simulator.system import Synapse
from synapse.domain.job import SlaTier

CALLERS = 1000
THINK_S = 5.0
"""A caller reads an answer for so long before asking again, on the average."""

BUSY_S = 1200.0
AFTERWARDS_S = 2400.0
TIERS = (SlaTier.GOLD, SlaTier.SILVER, SlaTier.BRONZE)
SHARES = (0.2, 0.6, 0.2)


@dataclass(frozen=True, slots=True)
class FromZero:
    """What became of it.

    `cold` are those who came when no worker was up, `warm` those who came once every machine that
    was started for them was there. Nothing was left `idle_s` after the last answer.
    """

    requests: list[Request]
    report: Report
    cold: TierReport
    settled_at: float
    warm: dict[SlaTier, TierReport]
    sizes: dict[str, list[tuple[float, int]]]
    zero_at: float
    idle_s: float


class _Caller:
    """Asks, reads the answer, asks again; on the line, or as a job."""

    def __init__(
        self, system: Synapse, tier: SlaTier, numbers: itertools.count[int], until: float
    ) -> None:
        self._events, self._system, self._chance = system.events, system, system.chance
        self._tier, self._numbers, self._until = tier, numbers, until
        self.asked: list[Request] = []

    def ask(self) -> None:
        chance = self._chance
        front_s = facts.API_GATEWAY.draw(chance) + facts.LAMBDA_INVOKE.draw(chance)
        self._events.after(front_s, lambda: self._arrive(front_s))

    def _arrive(self, front_s: float) -> None:
        request = Request(
            next(self._numbers),
            "rerank",
            self._tier,
            self._events.now,
            self._chance.gauss(0.0, 1.0),
            timeout_s=900.0,
            front_s=front_s,
            ended=self._answered,
        )
        self.asked.append(request)
        self._system.arrive(request)

    def _answered(self, request: Request) -> None:
        if self._events.now < self._until:
            self._events.after(self._chance.expovariate(1 / THINK_S), self.ask)


def run(seed: int = 1, callers: int = CALLERS, busy_s: float = BUSY_S) -> FromZero:
    """The whole episode."""
    chance, events = random.Random(seed), Events()
    pools = Pools(events, chance, [kind("neuron")])
    system = Synapse(events, chance, pools, [model("rerank")])
    tiers = chance.choices(TIERS, SHARES, k=callers)
    numbers = itertools.count()
    everybody = [_Caller(system, tier, numbers, busy_s) for tier in tiers]
    for caller in everybody:
        events.after(chance.uniform(0.0, 1.0), caller.ask)
    events.run(busy_s + AFTERWARDS_S)
    requests = sorted(
        (request for caller in everybody for request in caller.asked), key=lambda r: r.arrived_at
    )
    return _found(requests, pools, system)


def _found(requests: list[Request], pools: Pools, system: Synapse) -> FromZero:
    [(name, sizes)] = pools.sizes.items()
    report = report_of("0 → 1,000 → 0", requests, pools.usages(), system.meter)
    assert sizes[-1][1] == 0, f"{name}: {sizes[-1][1]} machines are left"
    last_end_at = max(request.ended_at for request in requests)
    settled_at = pools.last_up_at
    warm = [r for r in requests if r.arrived_at > settled_at]
    return FromZero(
        requests,
        report,
        tier_report(SlaTier.BRONZE, [r for r in requests if r.was_cold]),
        settled_at,
        {tier: tier_report(tier, [r for r in warm if r.tier is tier]) for tier in TIERS},
        pools.sizes,
        sizes[-1][0],
        sizes[-1][0] - last_end_at,
    )
