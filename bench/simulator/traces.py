"""Scenario 4: arrivals with the published statistics of traces of LLM services.

The traces themselves are not here: arrivals are drawn anew with their rates, peaks and bursts. What
is asked for is `rerank` in all tiers, not text, of whose speed on these machines nothing is known.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from bench.simulator.mixed_day import DAY_S, Design, Load, Setting
from bench.simulator.sweep import designs, load_of
from bench.simulator.workload import Rate, day

MINUTE_S = 60.0
CODE_PEAK = 585 * 57 / 8819
"""Of Azure's code service: the busiest of 57 minutes, in times of their mean."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What is known of a trace: requests a second, and what is drawn after it."""

    source: str
    per_s: float
    rate: Rate

    def load(self) -> Load:
        """All tiers of `rerank`; kept warm from before the first request to the last."""
        found = load_of("rerank", self.per_s)
        return Load(found.per_s, self.rate, ((4, 130),), found.shares)


def bursty(length_s: float, peak: float, seed: int = 1) -> Rate:
    """Each minute has a rate of its own: exponential, but never more than `peak` times the mean."""
    chance = random.Random(seed)
    drawn = [chance.expovariate(1.0) for _ in range(int(length_s / MINUTE_S) + 1)]
    # What is cut off at the peak is given to the others, so that the mean is 1.
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        mean = sum(min(peak, each * middle) for each in drawn) / len(drawn)
        low, high = (middle, high) if mean < 1 else (low, middle)
    minutes = [min(peak, each * low) for each in drawn]

    def rate(at: float) -> float:
        return minutes[int(at / MINUTE_S)]

    return rate


TRACES = {
    "bursty": Trace(
        "Azure LLM inference trace 2023, code: 8,819 requests in 57 minutes, at most 585 in one, "
        "none in others",
        8819 / 57 / 60,
        bursty(DAY_S, CODE_PEAK),
    ),
    "diurnal": Trace(
        "Azure LLM inference trace 2023, conversation: 19,366 requests in 58 minutes; over a day "
        "valley to peak 1 : 3.3 (E, after DynamoLLM, arXiv 2408.00741)",
        19366 / 58 / 60,
        day(DAY_S),
    ),
}
"""Counted from the files of github.com/Azure/AzurePublicDataset by who analysed them.

Gaps within a minute are those of BurstGPT (arXiv 2401.17644), as everywhere here.
"""


def rivals() -> Sequence[Design]:
    """Those of the sweep, and peers' policies."""
    return (
        *designs(),
        Design("Ray Serve-like, neuron", ("neuron",), Setting.ray),
        Design("KServe-like, neuron", ("neuron",), Setting.kserve),
        Design("always on, neuron", ("neuron",), Setting.always_on),
    )
