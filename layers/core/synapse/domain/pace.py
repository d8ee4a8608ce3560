"""How an item slows down with the company it has, from the last ones that ended.

Slots say how many items a worker takes at once, not that each is as fast as one alone: on a
machine whose cores are all busy with one, two take twice as long. So the time of an item is
fitted as a line over the items in flight with it, by least squares.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

WINDOW_S = 300.0
MAX_SAMPLES = 128
MIN_SAMPLES = 8
"""Fewer tell too little to refuse anybody."""

REFIT_SAMPLES = 8
REFIT_S = 0.1
"""A line through many samples is as good for the next few requests: fitting it takes longer than
anything else that is found out before one is sent."""


@dataclass(frozen=True, slots=True)
class Pace:
    """An item among n in flight takes `alone_s + n × each_s` seconds."""

    alone_s: float
    each_s: float

    def seconds(self, in_flight: int) -> float:
        """The time of an item among so many, itself counted."""
        return self.alone_s + in_flight * self.each_s

    def most(self, timeout_s: float) -> float:
        """The most items in flight, among which one takes no more than `timeout_s`."""
        spare_s = timeout_s - self.alone_s
        if spare_s < 0:
            return 0
        return math.inf if self.each_s <= spare_s * 1e-9 else spare_s / self.each_s

    def drain_s(self, start: int, end: int) -> float:
        """Until `start` items in flight have become `end`, at the least speed on the way.

        Among k items one ends every (alone_s + k × each_s) / k seconds.
        """
        return max(0, start - end) * (self.alone_s / max(1, end + 1) + self.each_s)


class Pacemaker:
    """The last items of a model: how many were in flight, and how long each took."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float, float]] = deque(maxlen=MAX_SAMPLES)
        self._fitted: Pace | None = None
        self._fitted_at = 0.0
        self._new_samples = 0

    def ended(self, now: float, in_flight: float, took_s: float) -> None:
        """Note an item that took `took_s` among `in_flight` on the average, itself counted."""
        self._samples.append((now, in_flight, took_s))
        self._new_samples += 1

    def pace(self, now: float) -> Pace | None:
        """The line through what was noted lately; None where that is too little."""
        while self._samples and self._samples[0][0] < now - WINDOW_S:
            self._samples.popleft()
        if len(self._samples) < MIN_SAMPLES:
            return None
        is_fresh = self._new_samples < REFIT_SAMPLES and 0 <= now - self._fitted_at < REFIT_S
        if self._fitted is None or not is_fresh:
            self._fitted = fitted([(n, took_s) for _, n, took_s in self._samples])
            self._fitted_at, self._new_samples = now, 0
        return self._fitted


def fitted(points: list[tuple[float, float]]) -> Pace:
    """The line through (items, seconds) that never falls and never starts below nothing."""
    count = len(points)
    mean_n = math.fsum(n for n, _ in points) / count
    mean_s = math.fsum(s for _, s in points) / count
    spread = math.fsum((n - mean_n) ** 2 for n, _ in points)
    together = math.fsum((n - mean_n) * (s - mean_s) for n, s in points)
    if spread <= 1e-9 or together <= 0:
        return Pace(mean_s, 0.0)
    each_s = together / spread
    if each_s * mean_n > mean_s:
        return Pace(0.0, mean_s / mean_n)
    return Pace(mean_s - each_s * mean_n, each_s)
