"""Scenario 2: a day of mixed traffic, on our design and on others', at three loads."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from bench.simulator import facts
from bench.simulator.bill import Meter
from bench.simulator.containers import on_gpus, on_lambda
from bench.simulator.events import Events
from bench.simulator.facts import Timed
from bench.simulator.fleet import MODELS, kind
from bench.simulator.peers import (
    BetterOfTwo,
    Fixed,
    Fleet,
    Knative,
    Peer,
    RayServe,
    RoundRobin,
    least_outstanding,
)
from bench.simulator.pools import Kind, Pools, Usage
from bench.simulator.report import Report, report_of
from bench.simulator.requests import End, Request
from bench.simulator.system import Synapse
from bench.simulator.workload import Rate, Traffic, day, mixed, sessions
from synapse.domain import cost
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import WarmWindow
from synapse.domain.price_list import ECS_FEE
from synapse.domain.reference import LAMBDA_GB
from synapse.domain.staffing import workers_for

MOST = 10
"""Machines that a pool may have."""

GPUS = 100
"""Machines where each request has one."""

DAY_S = 7200.0
"""A day shortened to two hours: its slopes are twelve times as steep as in reality, so start-ups
and idle times weigh more, for every design."""

QUIET = 0.25
"""The share of the day in which nobody asks."""

LEAD_S = 600.0
"""The day begins so long before its first request: who knows when it comes can be ready for it."""

END_S = LEAD_S + DAY_S
AFTERWARDS_S = 3600.0
"""What has not ended by then has expired: callers wait ten minutes, jobs an hour."""

CALLER_S = 600.0
JOB_S = 3600.0
ALL_DAY = day(DAY_S, QUIET)
IN_SESSIONS = sessions(DAY_S, (900.0, 2100.0), (4200.0, 5400.0))


SHARES = (
    ("embed", SlaTier.GOLD, 0.2),
    ("embed", SlaTier.SILVER, 0.6),
    ("embed", SlaTier.BRONZE, 0.2),
    ("rerank-64", SlaTier.SILVER, 0.6),
    ("rerank-64", SlaTier.BRONZE, 0.4),
)


@dataclass(frozen=True, slots=True)
class Load:
    """Requests a second of each model on the average of the day; when reranking is asked for.

    `warm` are the minutes in which one who knows that would keep an accelerator up: from six
    before, since a start may take as long. `shares` are of each model, by tier.
    """

    per_s: float
    rerank: Rate = ALL_DAY
    warm: Sequence[tuple[int, int]] = ((4, 100),)
    shares: Sequence[tuple[str, SlaTier, float]] = SHARES
    embed: Rate = ALL_DAY

    @property
    def served(self) -> Sequence[ModelSpec]:
        """The models that are asked for."""
        return [model for model in MODELS if model.name in {name for name, _, _ in self.shares}]


LOADS = {
    "low": Load(0.15),
    "sessions": Load(1.5, IN_SESSIONS, ((19, 45), (74, 100))),
    "medium": Load(1.5),
    "high": Load(5.0),
}
"""In `sessions` somebody reranks for a sixth of the day, twice; texts are embedded all day."""


class System(Protocol):
    """Whatever requests come to."""

    def arrive(self, request: Request) -> None:
        """A request has come."""
        ...

    def usage(self) -> Mapping[str, Usage]:
        """What its machines came to."""
        ...


@dataclass(frozen=True, slots=True)
class Setting:
    """What a design is built from."""

    events: Events
    chance: random.Random
    pools: Pools
    load: Load

    @property
    def peak(self) -> float:
        """Of the load over the day: machine-seconds a second on the first kind of machine."""
        return peak_of(self.load, self.pools.kinds[0].work)

    def ours(self) -> tuple[System, Meter]:
        """Synapse over all pools there are."""
        system = Synapse(self.events, self.chance, self.pools, self.load.served)
        system.meter.add(cost.housekeeping(END_S))
        return system, system.meter

    def always_on(self) -> tuple[System, Meter]:
        """As many machines all day as the peak keeps 70 % busy."""
        return self._peer(Fixed(math.ceil(self.peak / 0.7)))

    def kserve(self) -> tuple[System, Meter]:
        """Least outstanding, scaled by concurrency, from zero."""
        return self._peer(Knative(MOST))

    def ray(self) -> tuple[System, Meter]:
        """The better of two, Ray Serve's autoscaler."""
        first = self.pools.kinds[0]
        fleet = Fleet(first, BetterOfTwo(self.chance), RayServe(MOST))
        return Peer(self.events, self.pools, fleet), Meter()

    def round_robin(self) -> tuple[System, Meter]:
        """One after the other, Ray Serve's autoscaler."""
        fleet = Fleet(self.pools.kinds[0], RoundRobin(), RayServe(MOST))
        return Peer(self.events, self.pools, fleet), Meter()

    def overflow(self) -> tuple[System, Meter]:
        """The first kind, and what it has no room for on the second; both scaled as KServe does."""
        first, second = (Fleet(each, least_outstanding, Knative(MOST)) for each in self.pools.kinds)
        return Peer(self.events, self.pools, first, second), Meter()

    def naive(self) -> tuple[System, Meter]:
        """A function that has the model in itself, an environment for each request under way."""
        meter = Meter()
        return on_lambda(self.events, self.chance, meter), meter

    def provisioned(self) -> tuple[System, Meter]:
        """The same, with as many environments kept as the peak needs."""
        meter, peak = Meter(), peak_of(self.load, {m: t["cpu"] for m, t in facts.TIMES.items()})
        environments = math.ceil(workers_for(peak, 1, 1))
        gb = max(LAMBDA_GB[model.name] for model in self.load.served)
        meter.add(cost.provisioned(environments, END_S, gb))
        return on_lambda(self.events, self.chance, meter, environments), meter

    def a_gpu_each(self) -> tuple[System, Meter]:
        """A machine with a GPU for each request under way."""
        meter = Meter()
        return on_gpus(self.events, self.chance, meter, GPUS), meter

    def _peer(self, scaler: Fixed | Knative) -> tuple[System, Meter]:
        fleet = Fleet(self.pools.kinds[0], least_outstanding, scaler)
        return Peer(self.events, self.pools, fleet), Meter()


@dataclass(frozen=True, slots=True)
class Design:
    """A design by name: its pools, and how it is built."""

    name: str
    pools: Sequence[str]
    build: Callable[[Setting], tuple[System, Meter]]
    cpu_models: frozenset[str] = frozenset()
    warm: str = ""
    """The pool that is kept up by the clock."""

    def kinds(self, load: Load) -> list[Kind]:
        """Its machines."""
        return [self._kind(name, load) for name in self.pools]

    def _kind(self, name: str, load: Load) -> Kind:
        models = self.cpu_models if name == "cpu" else frozenset()
        # Others run their machines themselves.
        fee = ECS_FEE if self.build is Setting.ours else 1.0
        found = kind(name, most=MOST, models=models, fee=fee)
        if name != self.warm:
            return found
        model = load.shares[-1][0]
        windows = tuple(
            WarmWindow(model, from_minute=since, until_minute=until) for since, until in load.warm
        )
        return replace(found, pool=replace(found.pool, warm=windows))


SMALL = frozenset({"embed"})
ALL = ("cpu", "gpu", "neuron")
ABSENT = "not in the template: "
"""Designs with CPU machines, of which template.yaml has no pool: what one could have besides."""

DESIGNS = (
    Design("Synapse, neuron alone", ("neuron",), Setting.ours),
    Design("neuron alone, warm by the clock", ("neuron",), Setting.ours, warm="neuron"),
    Design("Synapse, gpu alone", ("gpu",), Setting.ours),
    Design(f"{ABSENT}cpu (embed) + gpu + neuron", ALL, Setting.ours, SMALL),
    Design(f"{ABSENT}the same, neuron warm", ALL, Setting.ours, SMALL, warm="neuron"),
    Design(f"{ABSENT}cpu (all) + gpu + neuron", ALL, Setting.ours),
    Design(f"{ABSENT}cpu alone", ("cpu",), Setting.ours),
    Design("KServe-like, neuron", ("neuron",), Setting.kserve),
    Design("KServe-like, gpu", ("gpu",), Setting.kserve),
    Design("Ray Serve-like, neuron", ("neuron",), Setting.ray),
    Design("Ray Serve-like, gpu", ("gpu",), Setting.ray),
    Design("round robin, gpu", ("gpu",), Setting.round_robin),
    Design("gpu first, cpu overflow", ("gpu", "cpu"), Setting.overflow),
    Design("always on, neuron", ("neuron",), Setting.always_on),
    Design("always on, gpu", ("gpu",), Setting.always_on),
    Design("naive Lambda", (), Setting.naive),
    Design("provisioned Lambda", (), Setting.provisioned),
    Design("a GPU for each request", (), Setting.a_gpu_each),
)


def traffics(load: Load) -> list[Traffic]:
    """What is asked at a load."""
    return [
        Traffic(model, tier, share * load.per_s, load.embed if model == "embed" else load.rerank)
        for model, tier, share in load.shares
    ]


def peak_of(load: Load, work: Mapping[str, Timed]) -> float:
    """The most machines with these times that the load keeps busy at any time of the day."""
    return max(
        sum(each.per_s * each.rate(float(at)) * work[each.model].p50_s for each in traffics(load))
        for at in range(0, int(DAY_S), 10)
    )


def is_able(design: Design, load: Load) -> bool:
    """Whether all machines that it may have could do the load of the peak, on the average."""
    kinds = design.kinds(load)
    return not kinds or any(peak_of(load, each.work) <= MOST for each in kinds)


def run(design: Design, load: Load, seed: int = 1) -> Report:
    """One design through the day."""
    chance, events = random.Random(seed), Events()
    pools = Pools(events, chance, design.kinds(load))
    system, meter = design.build(Setting(events, chance, pools, load))
    sizes, fronts = random.Random(seed + 1), random.Random(seed + 2)
    requests = [
        Request(
            number,
            each.model,
            each.tier,
            LEAD_S + each.at,
            sizes.gauss(0.0, 1.0),
            JOB_S if each.tier is SlaTier.BRONZE else CALLER_S,
            facts.API_GATEWAY.draw(fronts) + facts.LAMBDA_INVOKE.draw(fronts),
        )
        for number, each in enumerate(mixed(traffics(load), DAY_S, seed))
    ]
    for request in requests:
        events.after(request.arrived_at, partial(system.arrive, request))
    events.run(END_S)
    # Machines are paid for through the day; what came in it may end later.
    usage = system.usage()
    events.run(END_S + AFTERWARDS_S)
    for request in requests:
        if request.end is None:
            request.finish(End.EXPIRED, events.now)
    return report_of(design.name, requests, usage, meter)
