"""What others do, over the same machines: one queue, one kind of machine, and their autoscalers.

Their policies in their published defaults. They know no tiers: who came first is served first. What
surrounds them (a cluster, load balancers, head nodes) is not counted against them.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from bench.simulator import facts
from bench.simulator.events import Events
from bench.simulator.pools import Kind, Pools, Unit, Usage
from bench.simulator.requests import End, Request

TARGET = 2
"""Requests under way a replica that autoscalers aim at: Ray Serve's `target_ongoing_requests`."""

ROUND_S = 2.0
"""Knative's autoscaler looks so often."""

Choose = Callable[[Sequence[Unit]], Unit]
"""Which of the machines that are up is asked."""


def least_outstanding(units: Sequence[Unit]) -> Unit:
    """The one with the fewest requests under way."""
    return min(units, key=lambda unit: unit.machine.load)


@dataclass(slots=True)
class RoundRobin:
    """One after the other."""

    _turn: int = 0

    def __call__(self, units: Sequence[Unit]) -> Unit:
        """See `Choose`."""
        self._turn += 1
        return units[self._turn % len(units)]


@dataclass(slots=True)
class BetterOfTwo:
    """The less busy of two that are drawn, as Ray Serve does."""

    chance: random.Random

    def __call__(self, units: Sequence[Unit]) -> Unit:
        """See `Choose`."""
        return least_outstanding(self.chance.sample(units, min(2, len(units))))


class Scaler(Protocol):
    """How many machines there should be, asked every round."""

    def wanted(self, now: float, under_way: int, have: int) -> int:
        """With so many requests under way, or waiting, and so many machines wanted till now."""
        ...


@dataclass(frozen=True, slots=True)
class Fixed:
    """Always as many."""

    machines: int

    def wanted(self, now: float, under_way: int, have: int) -> int:
        """See `Scaler`."""
        return self.machines


@dataclass(slots=True)
class Knative:
    """KServe's: the mean concurrency of a minute, or of 6 s in a panic; never less than one.

    Defaults of KServe and Knative: `minReplicas` 1, stable window 60 s, panic window a tenth of it,
    panic at twice what there is, no scaling in before a panic is over for a stable window. To zero
    it would go 30 s after the last request, and come back in minutes: nobody does that with GPUs.
    """

    most: int
    _seen: deque[tuple[float, int]] = field(default_factory=deque)
    _panic_at: float = -math.inf

    def wanted(self, now: float, under_way: int, have: int) -> int:
        """See `Scaler`."""
        self._seen.append((now, under_way))
        while self._seen[0][0] <= now - 60:
            self._seen.popleft()
        stable = math.ceil(self._mean(now - 60) / TARGET)
        panic = math.ceil(self._mean(now - 6) / TARGET)
        if panic >= 2 * max(1, have):
            self._panic_at = now
        wanted = max(stable, panic, have) if now - self._panic_at < 60 else stable
        return min(self.most, max(1, wanted))

    def _mean(self, since: float) -> float:
        counts = [count for at, count in self._seen if at > since]
        return sum(counts) / len(counts)


@dataclass(slots=True)
class RayServe:
    """Ray Serve's: out when more were needed for 30 s, in when fewer were for 600 s; at least one.

    Defaults: `upscale_delay_s` 30, `downscale_delay_s` 600, `look_back_period_s` 30.
    """

    most: int
    _seen: deque[tuple[float, int]] = field(default_factory=deque)
    _more_since: float | None = None
    _fewer_since: float | None = None

    def wanted(self, now: float, under_way: int, have: int) -> int:
        """See `Scaler`."""
        self._seen.append((now, under_way))
        while self._seen[0][0] <= now - 30:
            self._seen.popleft()
        mean = sum(count for _, count in self._seen) / len(self._seen)
        needed = min(self.most, max(1, math.ceil(mean / TARGET)))
        if have == 0:
            return needed
        if needed > have:
            self._fewer_since = None
            self._more_since = now if self._more_since is None else self._more_since
            if now - self._more_since >= 30:
                self._more_since = None
                return needed
        elif needed < have:
            self._more_since = None
            self._fewer_since = now if self._fewer_since is None else self._fewer_since
            if now - self._fewer_since >= 600:
                self._fewer_since = None
                return needed
        else:
            self._more_since = self._fewer_since = None
        return have


@dataclass(slots=True)
class Fleet:
    """Machines of one kind, how they are chosen and how many there are; who finds none waits."""

    kind: Kind
    choose: Choose
    scaler: Scaler
    waiting: deque[Request] = field(default_factory=deque)
    under_way: int = 0


class Peer:
    """A design of others: a fleet, and perhaps one that takes what the first has no room for."""

    def __init__(
        self, events: Events, pools: Pools, first: Fleet, overflow: Fleet | None = None
    ) -> None:
        self._events, self._pools, self._first, self._overflow = events, pools, first, overflow
        self._fleets = [first, overflow] if overflow else [first]
        pools.on_up = self._is_up
        for fleet in self._fleets:
            # They have been running since yesterday.
            machines = fleet.scaler.machines if isinstance(fleet.scaler, Fixed) else 1
            pools.resize(fleet.kind, machines, at_once=True)
        events.every(ROUND_S, self._scale)

    def arrive(self, request: Request) -> None:
        """A request has come."""
        fleet, second = self._first, self._overflow
        if second is not None:
            room = TARGET * len(self._pools.up(fleet.kind.pool.name))
            fleet = fleet if fleet.under_way < room else second
        fleet.under_way += 1
        fleet.waiting.append(request)
        self._send(fleet)

    def usage(self) -> Mapping[str, Usage]:
        """What its machines came to."""
        return self._pools.usages()

    def _send(self, fleet: Fleet) -> None:
        units = self._pools.up(fleet.kind.pool.name)
        while units and fleet.waiting:
            self._start(fleet, fleet.choose(units), fleet.waiting.popleft())

    def _start(self, fleet: Fleet, unit: Unit, request: Request) -> None:
        def ended() -> None:
            fleet.under_way -= 1
            request.pool = unit.kind.pool.name
            request.finish(End.DELIVERED, self._events.now + facts.ENGINE_HOP.p50_s)

        unit.machine.take(unit.kind.work[request.model].at(request.score), 0, ended)

    def _is_up(self, unit: Unit) -> None:
        for fleet in self._fleets:
            self._send(fleet)

    def _scale(self) -> None:
        for fleet in self._fleets:
            have = len(self._pools.staying(fleet.kind.pool.name))
            wanted = fleet.scaler.wanted(self._events.now, fleet.under_way, have)
            if wanted != have:
                self._pools.resize(fleet.kind, wanted)
