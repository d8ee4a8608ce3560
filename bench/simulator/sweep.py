"""Scenario 3: the same day at rates from one in a hundred seconds to ten a second.

Where each design is the cheapest, where it keeps its promises, and how full its machines are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.simulator.mixed_day import DAY_S, Design, Load, Setting, is_able, run
from bench.simulator.report import Report
from bench.simulator.workload import sessions
from synapse.domain.job import SlaTier
from synapse.domain.reference import DEPLOYABLE

RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
"""Requests a second, on the average of the day."""

TIERS = ((SlaTier.GOLD, 0.2), (SlaTier.SILVER, 0.6), (SlaTier.BRONZE, 0.2))
MODELS = ("rerank", "embed")
BEST = "neuron"
"""The pool that is the cheapest for both, and is kept warm by who knows the day."""

FROM_ZERO = "Synapse, from zero"
WARM = "Synapse, warm by the clock"
NAIVE = "naive Lambda"


def designs() -> Sequence[Design]:
    """What is compared."""
    return (
        Design(FROM_ZERO, DEPLOYABLE, Setting.ours),
        Design(WARM, DEPLOYABLE, Setting.ours, warm=BEST),
        Design(NAIVE, (), Setting.naive),
        Design("provisioned Lambda", (), Setting.provisioned),
        Design("a GPU for each request", (), Setting.a_gpu_each),
        Design("always-on GPU", ("gpu",), Setting.always_on),
    )


def load_of(model: str, per_s: float) -> Load:
    """So many requests a second, of all tiers."""
    return Load(per_s, shares=tuple((model, tier, share) for tier, share in TIERS))


def sweep(
    model: str, rates: Sequence[float] = RATES, seed: int = 1
) -> Iterator[tuple[float, Report]]:
    """Each design that is able to, at each rate."""
    for per_s in rates:
        load = load_of(model, per_s)
        for design in designs():
            if is_able(design, load):
                yield per_s, run(design, load, seed)


@dataclass(frozen=True, slots=True)
class Full:
    """Work all the time: `silver` requests a second beside so many jobs of bronze, on GPUs."""

    silver_per_s: float
    bronze_per_s: float

    def run(self, seed: int = 1) -> Report:
        """Two hours of it."""
        per_s = self.silver_per_s + self.bronze_per_s
        shares = (
            ("rerank", SlaTier.SILVER, self.silver_per_s / per_s),
            ("rerank", SlaTier.BRONZE, self.bronze_per_s / per_s),
        )
        load = Load(per_s, sessions(DAY_S, (0.0, DAY_S)), ((4, 130),), shares)
        name = f"{self.silver_per_s:g} silver and {self.bronze_per_s:g} bronze a second"
        return run(Design(name, ("gpu",), Setting.ours, warm="gpu"), load, seed)


FULL = (Full(9.0, 21.0), Full(12.0, 24.0))
"""On the average 75 % and 90 % of one GPU."""
