"""A worker that is started when work comes and let go when none does: how often, and who waits."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cycle:
    """A worker that is started when work comes, and let go when none came for a while.

    `up` is the share of the time in which it is paid for, its starts counted, `starting` that of
    its starts, `cold` the share of requests that come when it is not up.
    """

    up: float
    starting: float
    cold: float


def cycle(per_s: float, idle_s: float, start_s: float) -> Cycle:
    """How often a worker comes and goes where requests are short and come independently.

    From a start it takes `start_s`, then it stays until a gap between two requests is longer than
    `idle_s`, which takes (e^(r·idle) − 1)/r at r requests a second; then it is away until the next
    one comes, 1/r. (M/G/1 with a setup time and a delayed switch-off: A. Gandhi, S. Doroudi,
    M. Harchol-Balter and A. Scheller-Wolf, Queueing Systems 77, 2014.)
    """
    if per_s <= 0:
        return Cycle(0.0, 0.0, 0.0)
    # Beyond e^700 there is no number; it is always up long before.
    on_s = math.expm1(min(per_s * idle_s, 700.0)) / per_s
    whole_s = start_s + on_s + 1 / per_s
    cold = (1 + per_s * start_s) / (per_s * whole_s)
    return Cycle((start_s + on_s) / whole_s, start_s / whole_s, min(1.0, cold))


@dataclass(frozen=True, slots=True)
class Opening:
    """A time at which requests begin to come while no worker is up.

    `cold` of them come before one is, and all who have to wait do so for `held_s` together.
    """

    cold: float
    held_s: float


def opening(per_s: float, start_s: float, work_s: float, workers: int) -> Opening:
    """What a worker's start costs those who come meanwhile, at `per_s` requests of `work_s`.

    They wait for half of the start on the average. Then what has come is to be worked off, while
    more of them come and wait in turn: as a line that gets shorter by what workers have to spare.
    """
    cold = per_s * start_s
    spare = max(0.05, 1 - per_s * work_s / workers)
    worked_off_s = cold * work_s / workers / spare
    return Opening(cold, cold * start_s / 2 + cold * worked_off_s / 2)
