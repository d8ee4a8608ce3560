"""Arrivals: a day's shape with bursts in it, and callers who ask again and again."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.simulator.facts import BURST_SHAPE, PEAK_TO_VALLEY
from synapse.domain.job import SlaTier

STEP_S = 1.0


Rate = Callable[[float], float]
"""How many times the mean the rate is at a time; its mean is 1."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that comes at a time."""

    at: float
    model: str
    tier: SlaTier


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests of one model in one tier: so many a second on the average, times `rate`."""

    model: str
    tier: SlaTier
    per_s: float
    rate: Rate


def day(length_s: float, quiet: float = 0.0) -> Rate:
    """How many times the mean the rate is at a time of the day; its mean is 1.

    The last `quiet` share of the day nobody asks; before, one wave from valley to peak and back.
    """
    swing = (PEAK_TO_VALLEY - 1) / (PEAK_TO_VALLEY + 1)
    busy_s = length_s * (1 - quiet)

    def rate(at: float) -> float:
        if at >= busy_s:
            return 0.0
        return (1 - swing * math.cos(2 * math.pi * at / busy_s)) / (1 - quiet)

    return rate


def sessions(length_s: float, *spans: tuple[float, float]) -> Rate:
    """The same, for what is asked evenly, but only within these spans of time."""
    asked_s = sum(until - since for since, until in spans)

    def rate(at: float) -> float:
        return length_s / asked_s if any(a <= at < b for a, b in spans) else 0.0

    return rate


def arrivals(traffic: Traffic, length_s: float, chance: random.Random) -> Iterator[Arrival]:
    """Gaps are gamma distributed, in a time that runs as fast as requests are to be expected."""
    due = chance.gammavariate(BURST_SHAPE, 1 / BURST_SHAPE)
    expected = 0.0
    step = 0
    while step * STEP_S < length_s:
        grows = traffic.per_s * traffic.rate(step * STEP_S) * STEP_S
        while grows > 0 and expected + grows >= due:
            at = (step + (due - expected) / grows) * STEP_S
            yield Arrival(at, traffic.model, traffic.tier)
            due += chance.gammavariate(BURST_SHAPE, 1 / BURST_SHAPE)
        expected += grows
        step += 1


def mixed(traffics: Sequence[Traffic], length_s: float, seed: int) -> list[Arrival]:
    """All of them together, in their order."""
    found: list[Arrival] = []
    for number, traffic in enumerate(traffics):
        found.extend(arrivals(traffic, length_s, random.Random(seed * 1000 + number)))
    return sorted(found, key=lambda each: each.at)
