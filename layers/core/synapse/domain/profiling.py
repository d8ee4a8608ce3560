"""How a model is measured on a worker: which measurements, in which order, and for how long.

A star instead of a full grid: every length of prompt and answer for an item alone, every number
of items in flight for items of the middle size, and at last the extremes of size in the company in
which the worker does best. The product of it all would take twenty times as long and tell the fit
(`domain.profile_fit`) little more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool

MAX_IN_FLIGHT = 256
"""What one measuring process can keep up without measuring itself."""

MIN_SAMPLES = 3
"""Fewer items than that make no measurement."""

STABLE_SAMPLES = 9
STABLE_WITHIN = 0.05
"""The median is known well enough once its 95 % interval is within this share of it, each way."""

GROWTH = 1.05
"""More in flight is worth trying as long as throughput has grown by a twentieth lately."""

KNEE = 0.9
"""The best batch is the smallest that has this share of the best throughput."""

PROMPTS = {Task.GENERATE: (16, 96, 384), Task.EMBED: (8, 48, 256), Task.TEXT: (8, 64, 1024)}
OUTPUTS = {Task.GENERATE: (4, 16, 64), Task.EMBED: (0, 0, 0), Task.TEXT: (0, 0, 0)}


class ProfilingError(Exception):
    """A profile cannot be made; the text is one line that says why."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement: always so many items in flight, each of about this size."""

    prompt_tokens: int
    output_tokens: int
    in_flight: int


@dataclass(frozen=True, slots=True)
class Measurement:
    """What came of a cell: each item's time, to its first token too where text is generated.

    Token counts are the medians of what the engine counted; `failed` items have no time.
    `items_per_s` got done while all were under way; `was_idle` says that the pool had nothing else
    to do meanwhile.
    """

    cell: Cell
    prompt_tokens: float
    output_tokens: float
    total_ms: tuple[float, ...]
    first_ms: tuple[float, ...] = ()
    items_per_s: float = 0.0
    took_s: float = 0.0
    failed: int = 0
    was_idle: bool = True

    @property
    def counts(self) -> bool:
        """Whether it says enough to be used."""
        return len(self.total_ms) >= MIN_SAMPLES


@dataclass(frozen=True, slots=True)
class Plan:
    """Three sizes (small, middle, large) of prompts and of answers, and the numbers in flight."""

    prompts: tuple[int, int, int]
    outputs: tuple[int, int, int]
    in_flight: tuple[int, ...]

    @property
    def alone(self) -> tuple[Cell, ...]:
        """The cells of one item at a time without which there is no profile, the middle first."""
        small, middle, _ = self.prompts
        brief, usual, _ = self.outputs
        return _once([(middle, usual), (small, usual), (middle, brief)], 1)

    @property
    def large(self) -> tuple[Cell, ...]:
        """Those of one large item at a time, which take longest."""
        _, middle, large = self.prompts
        _, usual, long = self.outputs
        cells = _once([(middle, long), (large, usual)], 1)
        return tuple(cell for cell in cells if cell not in self.alone)

    @property
    def crowds(self) -> tuple[Cell, ...]:
        """The cells of the middle size in company, the least first."""
        return tuple(Cell(self.prompts[1], self.outputs[1], n) for n in self.in_flight if n > 1)

    def extremes(self, in_flight: int) -> tuple[Cell, ...]:
        """The longest answers and the largest prompts, among so many."""
        return tuple(replace(cell, in_flight=in_flight) for cell in self.large)


def _once(sizes: Sequence[tuple[int, int]], in_flight: int) -> tuple[Cell, ...]:
    """The cells of these sizes, none of them twice."""
    return tuple(dict.fromkeys(Cell(prompt, output, in_flight) for prompt, output in sizes))


def plan_for(spec: ModelSpec, pool: Pool) -> Plan:
    """Sizes that the model's context holds, and numbers in flight up to a worker's slots."""
    output = tuple(_fitting(OUTPUTS[spec.task], spec.max_output_tokens))
    # A quarter is left for what the words of a prompt have in tokens beyond one each.
    room = max(1, (spec.context_tokens - max(output)) * 3 // 4)
    most = min(pool.slots_of(spec), MAX_IN_FLIGHT)
    doubling = [1 << at for at in range(most.bit_length())]
    crowds = tuple(dict.fromkeys([*doubling, most]))
    prompt = tuple(_fitting(PROMPTS[spec.task], room))
    return Plan((prompt[0], prompt[1], prompt[2]), (output[0], output[1], output[2]), crowds)


def _fitting(sizes: Sequence[int], most: int) -> list[int]:
    """The sizes, made smaller in proportion where the largest is too large."""
    largest = max(sizes)
    return list(sizes) if largest <= most else [max(1, size * most // largest) for size in sizes]


def next_cell(plan: Plan, done: Sequence[Measurement], budget_s: float = math.inf) -> Cell | None:
    """What to measure next; None once there is enough, or the budget is spent.

    No larger company is tried once two steps in a row brought no more throughput, or one in which
    items failed. A few items alone are measured whatever it takes; then company comes first, of
    which nothing else tells, and large items, from which a line already leads, come last.
    """
    known = {each.cell for each in done}
    for cell in plan.alone:
        if cell not in known:
            return cell
    if sum(each.took_s for each in done) >= budget_s:
        return None
    for cell in plan.crowds:
        if cell not in known and not _is_saturated(plan, done):
            return cell
    for cell in (*plan.large, *plan.extremes(best_batch(plan, done))):
        if cell not in known:
            return cell
    return None


def limit_s(plan: Plan, done: Sequence[Measurement], budget_s: float) -> float:
    """How long the next cell may take, so that all that may follow fit in the budget too."""
    most = len(plan.alone) + len(plan.crowds) + 2 * len(plan.large)
    left = max(1, most - len(done))
    return max(0.0, budget_s - sum(each.took_s for each in done)) / left


def throughputs(plan: Plan, done: Sequence[Measurement]) -> list[tuple[int, float]]:
    """Items in flight and items a second, for items of the middle size, by company."""
    cells = {plan.alone[0], *plan.crowds}
    found = [each for each in done if each.cell in cells and each.counts]
    return sorted((each.cell.in_flight, each.items_per_s) for each in found)


def best_batch(plan: Plan, done: Sequence[Measurement]) -> int:
    """The knee: the fewest items in flight that have nearly the best throughput."""
    found = throughputs(plan, done)
    best = max((rate for _, rate in found), default=0.0)
    return next((n for n, rate in found if rate >= KNEE * best), 1)


def _is_saturated(plan: Plan, done: Sequence[Measurement]) -> bool:
    crowd = [each for each in done if each.cell in plan.crowds]
    if any(each.failed or not each.counts for each in crowd):
        return True
    rates = [rate for _, rate in throughputs(plan, done)]
    return len(rates) > 2 and max(rates[-2:]) < GROWTH * max(rates[:-2])


def is_stable(times: Sequence[float]) -> bool:
    """Whether the median is known well enough: by the ranks between which it lies (95 %)."""
    count = len(times)
    if count < STABLE_SAMPLES:
        return False
    ordered, middle = sorted(times), median(times)
    reach = 0.98 * math.sqrt(count)
    low = ordered[max(0, math.floor(count / 2 - reach))]
    high = ordered[min(count - 1, math.ceil(count / 2 + reach))]
    return high - low <= 2 * STABLE_WITHIN * middle
