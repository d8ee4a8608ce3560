"""Quantiles of what was measured lately: exact, in bounded memory, cheap enough for every call."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from dataclasses import dataclass

WINDOW_S = 60.0
"""Older samples say nothing any more: a pool that was slow is tried again after so long."""

MAX_SAMPLES = 256


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of `count` samples."""

    count: int
    p50: float
    p95: float
    p99: float


class Latencies:
    """The last samples of one kind of call, none older than `window_s`."""

    __slots__ = ("_by_age", "_by_size", "_max_samples", "_window_s")

    def __init__(self, window_s: float = WINDOW_S, max_samples: int = MAX_SAMPLES) -> None:
        self._window_s = window_s
        self._max_samples = max_samples
        self._by_age: deque[tuple[float, float]] = deque()
        self._by_size: list[float] = []

    def note(self, now: float, value: float) -> None:
        """Add a sample; `now` never goes back."""
        if len(self._by_age) == self._max_samples:
            self._drop_oldest()
        self._by_age.append((now, value))
        insort(self._by_size, value)

    def count(self, now: float) -> int:
        """How much was noted lately."""
        while self._by_age and self._by_age[0][0] <= now - self._window_s:
            self._drop_oldest()
        return len(self._by_size)

    def quantiles(self, now: float) -> Quantiles | None:
        """Of what was noted lately (nearest rank); None where nothing was."""
        count = self.count(now)
        if count == 0:
            return None
        rank = self._ranked
        return Quantiles(count, rank(0.50), rank(0.95), rank(0.99))

    def share(self, now: float, above: float, up_to: float) -> float | None:
        """The share of what was noted lately that lies between; None where nothing was noted."""
        count, sizes = self.count(now), self._by_size
        if count == 0:
            return None
        return (bisect_right(sizes, up_to) - bisect_right(sizes, above)) / count

    def _ranked(self, share: float) -> float:
        return self._by_size[math.ceil(share * len(self._by_size)) - 1]

    def _drop_oldest(self) -> None:
        _, value = self._by_age.popleft()
        del self._by_size[bisect_left(self._by_size, value)]
