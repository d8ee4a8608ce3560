"""What an item asks of the workers of a pool: how long it keeps one busy, and how much room."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from synapse.domain.profile import Profile
from synapse.domain.routing import TIER_P99_MS, Need, PoolView
from synapse.domain.window import company_of


class Crowd(NamedTuple):
    """How many items a worker does side by side as fast as one, and how many a promise bears."""

    side_by_side: int
    most: int


def worker_s_per_item(view: PoolView, prompt_tokens: int, output_tokens: int) -> float | None:
    """How long an item keeps a whole worker busy that has all the company it can take.

    The profile knows what company costs, the live rate how large items are of late: the greater
    of the two. None where nothing was measured.
    """
    known = []
    profile = view.profile
    if profile is not None and prompt_tokens + output_tokens > 0:
        together = profile.together(view.slots)
        known.append(profile.p50_ms(prompt_tokens, output_tokens, together) / 1000 / together)
    elif profile is not None and profile.items_per_s > 0:
        known.append(1 / profile.rate(view.slots))
    if view.seconds_per_item is not None:
        known.append(view.seconds_per_item / max(1, view.slots))
    return max(known, default=None)


def crowd_of(need: Need, view: PoolView) -> Crowd | None:
    """How much company the promise bears; None where there is none, or one that breaks anyway."""
    promise_ms, profile = TIER_P99_MS[need.tier], view.profile
    if promise_ms == math.inf or profile is None:
        return None
    p99_ms = partial(_p99_ms, profile, need)
    if not 0 < p99_ms(1) <= promise_ms:
        return None
    most = company_of(p99_ms, p99_ms(1), view.slots, promise_ms).most
    if most is None:
        # All slots may be taken, and somebody wait for one.
        most = int(view.slots * promise_ms / p99_ms(view.slots))
    together = profile.together(view.slots)
    speed = together / profile.slowdown(together)
    return Crowd(max(1, min(most, round(speed))), most)


def slots_within(profile: Profile, need: Need, most: int) -> int:
    """How many items at once, up to `most`, keep the promise of the need's tier; 0: not even one.

    So many slots a pool may have for a promise to hold whenever all of them are taken.
    """
    promise_ms, p99_ms = TIER_P99_MS[need.tier], partial(_p99_ms, profile, need)
    if p99_ms(1) > promise_ms:
        return 0
    return company_of(p99_ms, p99_ms(1), most, promise_ms).most or most


def _p99_ms(profile: Profile, need: Need, in_flight: int) -> float:
    """What the promise is about, at the 99th percentile."""
    if need.first_token_only:
        return profile.first_p99_ms(need.prompt_tokens, in_flight)
    return profile.p99_ms(need.prompt_tokens, need.output_tokens, in_flight)


def unmixed(views: Mapping[str, Sequence[PoolView]]) -> dict[str, list[PoolView]]:
    """The same, by model, without live rates that other models' items are in.

    Where several models were measured on the workers of a pool, the rate of one says how long its
    items were held up by the others': there the profile alone counts, where there is one.
    """
    measured = [
        view.pool.name
        for of_model in views.values()
        for view in of_model
        if view.seconds_per_item is not None
    ]
    shared = {name for name in measured if measured.count(name) > 1}
    return {
        model: [
            replace(view, seconds_per_item=None)
            if view.pool.name in shared and view.profile is not None
            else view
            for view in of_model
        ]
        for model, of_model in views.items()
    }
