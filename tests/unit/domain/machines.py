"""Made-up workers whose true times are known, and what a profiler would measure on them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from statistics import median

from synapse.domain.profile import slowdown
from synapse.domain.profiling import Cell, Measurement, Plan, next_cell


@dataclass(frozen=True)
class Machine:
    """Answers in (base + tokens' times) × company's part, times noise with a long tail."""

    base_ms: float
    prompt_ms: float = 0.0
    output_ms: float = 0.0
    company: float = 0.0
    first_company: float = 0.0
    slots: int = 0
    noise: float = 0.0
    strays: float = 0.0
    generates: bool = False

    def first_ms(self, prompt: float, n: int) -> float:
        return (self.base_ms + self.prompt_ms * prompt) * slowdown(
            n, self.first_company, self.slots
        )

    def total_ms(self, prompt: float, output: float, n: int) -> float:
        if self.generates:
            rest = self.output_ms * output * slowdown(n, self.company, self.slots)
            return self.first_ms(prompt, n) + rest
        return (self.base_ms + self.prompt_ms * prompt) * slowdown(n, self.company, self.slots)

    def measured(self, cell: Cell, chance: random.Random, samples: int = 30) -> Measurement:
        firsts, totals = [], []
        for _ in range(samples):
            luck = max(0.2, chance.gauss(1.0, self.noise))
            luck *= 5.0 if chance.random() < self.strays else 1.0
            firsts.append(luck * self.first_ms(cell.prompt_tokens, cell.in_flight))
            size = (cell.prompt_tokens, cell.output_tokens, cell.in_flight)
            totals.append(luck * self.total_ms(*size))
        return Measurement(
            cell=cell,
            prompt_tokens=cell.prompt_tokens,
            output_tokens=cell.output_tokens,
            total_ms=tuple(totals),
            first_ms=tuple(firsts) if self.generates else (),
            items_per_s=1000 * cell.in_flight / median(totals),
            took_s=1.0,
        )

    def all_measured(self, plan: Plan, seed: int = 1) -> list[Measurement]:
        chance, done = random.Random(seed), list[Measurement]()
        while (cell := next_cell(plan, done)) is not None:
            done.append(self.measured(cell, chance))
        return done
