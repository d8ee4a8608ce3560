"""How long a request would take in a pool as it stands: its wait by Little's law, then its work.

The profile says what is usual, the last minute what is the case; the more was seen in the last
minute, the more it counts. Both are compared by size (`domain.expectation`), so that what was
measured on short requests says something about long ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from synapse.domain.expectation import Work, first_ms, whole_ms
from synapse.domain.latency import Quantiles
from synapse.domain.profile import Profile

PROFILE_WEIGHT = 20
"""What a profile's spread counts beside the calls of the last minute, in calls."""

UNKNOWN_SPREAD = 2.0
"""p99 ÷ mean where only the mean was measured."""

TELLS_P99 = 100
TELLS_P95 = 20
"""Of fewer calls the quantile is just the worst of them: one outlier would say it all."""


@dataclass(frozen=True, slots=True)
class Live:
    """What calls took lately, as multiples of what was to be expected (`domain.expectation`)."""

    whole: Quantiles | None = None
    first: Quantiles | None = None


NOTHING_LIVE = Live()


@dataclass(frozen=True, slots=True)
class Prediction:
    """Milliseconds: 99th percentiles and medians of the whole and of the first token.

    `wait_ms` of them pass before a slot is free, `start_ms` of those until a worker is up.
    """

    whole_p99_ms: float
    first_p99_ms: float
    wait_ms: float
    start_ms: float
    whole_p50_ms: float
    first_p50_ms: float


def predicted(
    prompt_tokens: int,
    output_tokens: int,
    *,
    items: int,
    ahead: int,
    workers: int,
    slots: int,
    start_ms: float,
    profile: Profile | None,
    seconds_per_item: float | None,
    live: Live,
) -> Prediction | None:
    """The prediction for `items` that join `ahead` others; None if nothing is known.

    What is ahead of the newcomers beyond the free slots drains at `workers × slots` items a slot
    time. With no worker up there is one, after `start_ms`.
    """
    workers = max(1, workers)
    each = min(slots, math.ceil((ahead + items) / workers))
    work = Work(prompt_tokens, output_tokens)
    spread = None if profile is None else profile.spread
    whole = _times_ms(whole_ms(profile, work, each, slots), live.whole, spread)
    mean_ms = slot_ms(seconds_per_item)
    if whole is None:
        if mean_ms is None:
            return None
        whole = _Times(UNKNOWN_SPREAD * mean_ms, mean_ms)
    if profile is not None and profile.first_spread is not None:
        spread = profile.first_spread
    first = _times_ms(first_ms(profile, work, each, slots), live.first, spread) or whole
    drains_ms = mean_ms
    if drains_ms is None:
        drains_ms = whole_ms(profile, work, each, slots) if profile is not None else whole.p99
    all_slots = workers * slots
    wait_ms = start_ms + max(0, ahead + items - all_slots) * drains_ms / all_slots
    # The first token never comes after the last.
    return Prediction(
        wait_ms + whole.p99,
        wait_ms + min(first.p99, whole.p99),
        wait_ms,
        start_ms,
        wait_ms + whole.p50,
        wait_ms + min(first.p50, whole.p50),
    )


def slot_ms(seconds_per_item: float | None) -> float | None:
    """The mean slot time in milliseconds."""
    return None if seconds_per_item is None else seconds_per_item * 1000


class _Times(NamedTuple):
    p99: float
    p50: float


def _times_ms(expected_ms: float, live: Quantiles | None, spread: float | None) -> _Times | None:
    """What was seen lately and what the profile says, weighed; None if there is neither."""
    if live is None:
        return None if spread is None else _Times(expected_ms * spread, expected_ms)
    if spread is None:
        return _Times(expected_ms * _tail(live, UNKNOWN_SPREAD), expected_ms * live.p50)
    weight = live.count + PROFILE_WEIGHT
    p99 = (live.count * _tail(live, spread) + PROFILE_WEIGHT * spread) / weight
    p50 = (live.count * live.p50 + PROFILE_WEIGHT) / weight
    return _Times(expected_ms * p99, expected_ms * p50)


def _tail(live: Quantiles, spread: float) -> float:
    """The 99th percentile, as far as so many calls tell of it."""
    if live.count >= TELLS_P99:
        return live.p99
    return live.p95 if live.count >= TELLS_P95 else live.p50 * spread
