"""Synapse on AWS in virtual time, with one machine at most."""

from __future__ import annotations

import random
from dataclasses import replace

from bench.simulator.bill import Meter
from bench.simulator.events import Events, at_once
from bench.simulator.facts import AWS, Around
from bench.simulator.fleet import kind, model
from bench.simulator.going_round import RoundLane
from bench.simulator.pools import Pools
from bench.simulator.requests import End, Request
from bench.simulator.system import Synapse
from synapse.domain.job import SlaTier
from synapse.domain.model import ServiceSample
from synapse.domain.reference import SLOTS


class Aws:
    """`rerank` on one machine of the pool `gpu`, or on none."""

    def __init__(self, machines: int = 1, around: Around = AWS) -> None:
        self.events, chance = Events(), random.Random(1)
        gpu = kind("gpu", most=1)
        gpu = replace(gpu, pool=replace(gpu.pool, min_workers=machines))
        self.pool, pools = gpu.pool, Pools(self.events, chance, [gpu])
        self.system = Synapse(self.events, chance, pools, [model("rerank")], around)
        pools.resize(gpu, machines, at_once=True)
        self.events.run(10.0)
        self.jobs: list[Request] = []

    @property
    def meter(self) -> Meter:
        return self.system.meter

    @property
    def lane(self) -> RoundLane:
        lane = self.system._jobs
        assert isinstance(lane, RoundLane)
        return lane

    def send(self, jobs: int, tier: SlaTier = SlaTier.BRONZE, timeout_s: float = 600.0) -> None:
        """So many at this moment."""
        for _ in range(jobs):
            number = len(self.jobs)
            request = Request(number, "rerank", tier, self.events.now, 0.0, timeout_s)
            self.jobs.append(request)
            self.system.arrive(request)

    def run(self, seconds: float) -> None:
        self.events.run(self.events.now + seconds)

    def measured(self) -> Aws:
        """The same, where callers on the line have told how long an item lasts."""
        sample = ServiceSample("rerank", "gpu", 100, 5.0)
        at_once(self.system.routing.registry.record_service(sample, self.events.now))
        return self

    def full(self) -> Aws:
        """The same, where others of bronze have all slots, which end when `free` says so."""
        self.lane.slots.occupy("rerank", "gpu", SLOTS)
        return self

    def free(self, slots: int = SLOTS) -> None:
        """So many of these others end."""
        self.lane.slots.free("rerank", "gpu", slots)

    def ends(self) -> set[End | None]:
        return {job.end for job in self.jobs}
