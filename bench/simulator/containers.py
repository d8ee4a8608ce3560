"""What one would build first: a container for each request, started when none is free.

As a Lambda function that has the model in itself (with environments that are provisioned, or
without), or on GPUs, a machine for each request under way. No batches, no queue, no tiers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.simulator import facts
from bench.simulator.bill import Meter
from bench.simulator.events import Event, Events
from bench.simulator.facts import Delay
from bench.simulator.pools import Usage
from bench.simulator.requests import End, Request
from synapse.domain import cost, reference
from synapse.domain.cost import Bill
from synapse.domain.price_list import USD_HOUR

KEEP_S = 300.0
"""E: a container that nobody asks for stays so long; AWS says nothing."""

CONCURRENCY = 1000
"""Lambda's default quota in a region."""

Run = Callable[[str, float], Bill]
"""What a run of a model is billed that took so many seconds."""


def lambda_run(model: str, busy_s: float) -> Bill:
    """By a function that is started when it is needed."""
    return cost.lambda_run(busy_s, reference.LAMBDA_GB[model])


def provisioned_run(model: str, busy_s: float) -> Bill:
    """In an environment that is provisioned."""
    return cost.provisioned_run(busy_s, reference.LAMBDA_GB[model])


def unbilled(model: str, busy_s: float) -> Bill:
    """On a machine that is paid by the hour."""
    return Bill()


@dataclass(slots=True, eq=False)
class _Container:
    asked_at: float
    is_provisioned: bool = False
    ends: Event | None = None


class Containers:
    """Takes one request at a time in each; who finds none free has a new one started for it."""

    def __init__(
        self,
        events: Events,
        chance: random.Random,
        work: Mapping[str, Delay],
        start: Delay,
        meter: Meter,
        *,
        run: Run = lambda_run,
        usd_hour: float = 0.0,
        most: int = CONCURRENCY,
        provisioned: int = 0,
    ) -> None:
        self._events, self._chance, self._meter = events, chance, meter
        self._work, self._start, self._run, self._most = work, start, run, most
        self._provisioned = [_Container(0.0, True) for _ in range(provisioned)]
        self._idle: list[_Container] = []
        self._here: list[_Container] = []
        self._usd_hour = usd_hour
        self._paid_s = self._busy_s = self._starting_s = 0.0
        self._most_at_once = 0

    def arrive(self, request: Request) -> None:
        """A request has come."""
        work_s = self._work[request.model].at(request.score)
        if self._provisioned:
            self._serve(self._provisioned.pop(), request, work_s, provisioned_run)
        elif self._idle:
            container = self._idle.pop()
            assert container.ends is not None, "it was idle"
            container.ends.cancel()
            self._serve(container, request, work_s, self._run)
        elif len(self._here) < self._most:
            container = _Container(self._events.now)
            self._here.append(container)
            self._most_at_once = max(self._most_at_once, len(self._here))
            request.was_cold = True
            start_s = self._start.draw(self._chance)
            self._starting_s += start_s
            # The start is a part of the first run, as it is billed.
            self._events.after(
                start_s, lambda: self._serve(container, request, work_s, self._run, start_s)
            )
        else:
            request.finish(End.REFUSED, self._events.now)

    def usage(self) -> Mapping[str, Usage]:
        """What the machines came to; nothing where they are not paid by the hour."""
        if self._usd_hour == 0:
            return {}
        now = self._events.now
        paid_s = self._paid_s + sum(now - container.asked_at for container in self._here)
        usd = paid_s / 3600 * self._usd_hour
        return {
            "containers": Usage(paid_s, self._busy_s, self._starting_s, usd, self._most_at_once)
        }

    def _serve(
        self,
        container: _Container,
        request: Request,
        work_s: float,
        run: Run,
        start_s: float = 0.0,
    ) -> None:
        def ended() -> None:
            self._meter.add(run(request.model, start_s + work_s))
            request.finish(End.DELIVERED, self._events.now)
            if container.is_provisioned:
                self._provisioned.append(container)
                return
            self._busy_s += work_s
            self._idle.append(container)
            container.ends = self._events.after(KEEP_S, lambda: self._expire(container))

        self._events.after(work_s, ended)

    def _expire(self, container: _Container) -> None:
        self._idle.remove(container)
        self._here.remove(container)
        self._paid_s += self._events.now - container.asked_at


def on_lambda(
    events: Events, chance: random.Random, meter: Meter, provisioned: int = 0
) -> Containers:
    """Functions that have the model in themselves."""
    work = {model: of_model["cpu"] for model, of_model in facts.TIMES.items()}
    start = facts.LAMBDA_IMAGE_START
    return Containers(events, chance, work, start, meter, provisioned=provisioned)


def on_gpus(events: Events, chance: random.Random, meter: Meter, most: int) -> Containers:
    """A machine with a GPU for each request under way."""
    work = {model: of_model["gpu"] for model, of_model in facts.TIMES.items()}
    start = facts.START["gpu"]
    usd_hour = USD_HOUR[reference.INSTANCE["gpu"]]
    return Containers(
        *(events, chance, work, start, meter), run=unbilled, usd_hour=usd_hour, most=most
    )
