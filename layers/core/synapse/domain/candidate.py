"""A pool as the router judged it, and which of two is tried first."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from synapse.domain.pool import FALLBACK_ORDER, Pool
from synapse.domain.prediction import Prediction


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pool as the router judged it: its prediction, its price, and why it was (not) taken.

    None for a prediction or a price that nothing was measured for. `is_late` says that even its
    median misses the tier's promise, or is not known. `usd_per_item` is what an item adds to the
    bill now, `busy_usd_per_item` what it costs on a worker that is kept busy. `slots` are those of
    all its workers that are up, of one where none is. One that `is_doubtful` is asked where there
    is no other: a late answer is better than none. `room` is how many items of bronze may begin,
    None for any number and for other tiers.
    """

    pool: Pool
    slots: int
    prediction: Prediction | None
    usd_per_item: float | None
    busy_usd_per_item: float | None
    is_cold: bool
    is_open: bool
    fits: bool
    meets_deadline: bool
    is_late: bool
    must_yield: bool
    reason: str
    is_doubtful: bool = False
    room: int | None = None

    @property
    def is_well(self) -> bool:
        """Whether workers of the pool are up, and answer as far as is known."""
        return not self.is_cold and not self.is_open

    @property
    def is_full(self) -> bool:
        """Whether it lets no bronze begin at all."""
        return self.room is not None and self.room <= 0

    @property
    def may_start(self) -> bool:
        """Whether a worker of the pool is on its way, or can be."""
        return self.is_cold and not self.is_open and self.pool.max_workers > 0

    @property
    def p99_ms(self) -> float | None:
        """The predicted 99th percentile of the whole answer's time."""
        return None if self.prediction is None else self.prediction.whole_p99_ms


def soonest_start_ms(candidates: Iterable[Candidate]) -> float:
    """When the first answer of a pool at zero is to be had (p99); infinite if there is none."""
    return min([_or_most(c.p99_ms) for c in candidates if c.may_start], default=math.inf)


def by_price(candidate: Candidate) -> tuple[bool, float, float, float]:
    """The order of those that fit."""
    return (
        candidate.must_yield,
        _or_most(candidate.usd_per_item),
        _or_most(candidate.busy_usd_per_item),
        _or_most(candidate.p99_ms),
    )


def by_fallback(
    candidate: Candidate, start_ms: float
) -> tuple[bool, bool, bool, bool, bool, int, float]:
    """The order of those that do not, where a worker that starts answers after `start_ms`."""
    cannot = candidate.is_open or (candidate.is_cold and not candidate.may_start)
    return (
        cannot,
        not candidate.meets_deadline,
        # Of whom nothing was measured yet it is not said that it answers later.
        not candidate.is_cold and (candidate.p99_ms or 0.0) > start_ms,
        candidate.is_cold,
        candidate.is_late,
        # Of those at zero the one that is up first.
        0 if candidate.is_cold else _KINDS.get(candidate.pool.accelerator, len(_KINDS)),
        _or_most(candidate.p99_ms),
    )


_KINDS = {kind.value: place for place, kind in enumerate(FALLBACK_ORDER)}


def _or_most(value: float | None) -> float:
    return math.inf if value is None else value
