"""The traffic of a day, as one would say it in a sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass

from synapse.domain.job import SlaTier

STEPS = 96
"""Quarters of an hour of a day."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What is asked: requests a day, in `busy_hours` of it, and how many times the mean at most.

    Raises:
        ValueError: that cannot be.
    """

    per_day: float
    tier: SlaTier = SlaTier.SILVER
    peak: float = 2.0
    busy_hours: float = 24.0

    def __post_init__(self) -> None:
        if not 0 < self.per_day < math.inf:
            raise ValueError(f"requests a day: must be more than 0, not {self.per_day:g}")
        if not 0 < self.busy_hours <= 24:
            raise ValueError(
                f"busy hours: must be more than 0 and at most 24, not {self.busy_hours:g}"
            )
        if not 1 <= self.peak <= 100:
            raise ValueError(f"peak: must be 1 to 100 times the mean, not {self.peak:g}")

    def rates(self) -> list[float]:
        """Requests a second in each quarter of an hour; one wave in the busy hours."""
        busy = max(1, round(STEPS * self.busy_hours / 24))
        mean = self.per_day / (busy * 86_400 / STEPS)
        return [mean * share for share in wave(busy, self.peak)] + [0.0] * (STEPS - busy)


def wave(steps: int, peak: float) -> list[float]:
    """One wave around 1 whose greatest value is `peak`, as far as the steps allow, and never 0.

    exp(k·cos) over its mean: the more pronounced the greater k is (the shape of von Mises).
    """
    angles = [2 * math.pi * (step - steps // 2) / steps for step in range(steps)]

    def shaped(k: float) -> list[float]:
        values = [math.exp(k * (math.cos(angle) - 1)) for angle in angles]
        mean = sum(values) / steps
        return [value / mean for value in values]

    low, high = 0.0, 10_000.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if max(shaped(middle)) < peak else (low, middle)
    return shaped(low)
