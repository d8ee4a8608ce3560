"""Which pool a request goes to: the cheapest whose predicted p99 fits its tier and its deadline.

Where none fits, the fallback order decides: the fastest kind of accelerator first. Everything
that the choice was made from stands in the decision, so that it can be explained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from synapse.domain.job import SlaTier
from synapse.domain.pool import FALLBACK_ORDER, Pool
from synapse.domain.profile import Profile

TIER_P99_MS = {SlaTier.GOLD: 50.0, SlaTier.SILVER: 150.0, SlaTier.BRONZE: math.inf}
"""What a tier promises: of the whole answer, or of the first token where text is generated."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a request asks for: its tier, its size, and how long it may take in all.

    `first_token_only` says that the tier's promise is about the first token, as it is for text
    that is generated; the deadline is about the whole answer always. Requests with the same
    `affinity` had better meet the same worker (its prefix cache).
    """

    tier: SlaTier
    items: int = 1
    prompt_tokens: int = 0
    output_tokens: int = 0
    deadline_s: float | None = None
    first_token_only: bool = False
    affinity: str = ""


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool as it stands when the choice is made.

    `ready` workers answer for the model, `starting` ones soon will; each takes `slots` items at
    once. `in_flight` items are under way in the pool, `queued` ones wait before the newcomer.
    `seconds_per_item` is the slot time measured lately, None where nothing was; `p95_ms` what
    answers took lately. `is_open` says that its circuit breaker lets nothing through.
    """

    pool: Pool
    slots: int
    ready: int
    starting: int = 0
    in_flight: int = 0
    queued: int = 0
    profile: Profile | None = None
    seconds_per_item: float | None = None
    p95_ms: float | None = None
    is_open: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A pool as the router judged it: its prediction, its price, and why it was (not) taken.

    None for a prediction that nothing was measured for.
    """

    pool: Pool
    p99_ms: float | None
    usd_per_item: float | None
    is_cold: bool
    fits: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The pools to try, first choice first, and why.

    `fallback` says why no pool fits, where none does; empty otherwise.
    """

    candidates: tuple[Candidate, ...]
    pools: tuple[Pool, ...]
    fallback: str = ""

    @property
    def is_cold(self) -> bool:
        """Whether the first choice has no worker up."""
        return bool(self.pools) and next(
            c.is_cold for c in self.candidates if c.pool.name == self.pools[0].name
        )


def route(need: Need, views: Sequence[PoolView]) -> Decision:
    """Judge every pool and put them in the order in which they are to be tried.

    Those that fit come first, the cheapest in front, and of those that cost the same the quicker;
    the others follow in the fallback order, closed breakers before open ones.
    """
    candidates = tuple(_judged(need, view) for view in views)
    fitting = sorted((c for c in candidates if c.fits), key=_by_price)
    others = sorted((c for c in candidates if not c.fits), key=_by_fallback(views))
    fallback = "" if fitting or not views else _why_none(need, candidates)
    return Decision(candidates, tuple(c.pool for c in (*fitting, *others)), fallback)


def _judged(need: Need, view: PoolView) -> Candidate:
    usd, is_cold = _usd_per_item(view), view.ready == 0
    p99_ms = predicted_p99_ms(need, view)
    if view.is_open:
        return Candidate(view.pool, p99_ms, usd, is_cold, False, "its circuit breaker is open")
    if p99_ms is None:
        # Nothing to say against it; who asks for nothing in particular may be the first to try.
        fits = need.tier is SlaTier.BRONZE
        return Candidate(view.pool, None, usd, is_cold, fits, "nothing was measured of it yet")
    limit_ms = _limit_ms(need)
    fits = p99_ms <= limit_ms
    verdict = "fits" if fits else "is more than"
    reason = f"predicted p99 {p99_ms:.0f} ms {verdict} {limit_ms:.0f} ms"
    return Candidate(view.pool, p99_ms, usd, is_cold, fits, reason)


def predicted_p99_ms(need: Need, view: PoolView) -> float | None:
    """The 99th percentile of the whole answer's time, waiting included; None if nothing is known.

    Little's law for the wait: what is ahead of the newcomer beyond the free slots drains at
    `ready × slots` items per slot time. At zero workers the time to start one comes on top.
    """
    profile, workers = view.profile, max(1, view.ready)
    ahead = view.in_flight + view.queued
    if profile is None and view.seconds_per_item is None:
        return None
    each = min(view.slots, math.ceil((ahead + need.items) / workers))
    if profile is None:
        assert view.seconds_per_item is not None
        p50_ms = p99_ms = view.seconds_per_item * 1000
    else:
        p50_ms = profile.p50_ms(need.prompt_tokens, need.output_tokens, each)
        p99_ms = profile.p99_ms(need.prompt_tokens, need.output_tokens, each)
    if view.p95_ms is not None:
        p99_ms = max(p99_ms, view.p95_ms)
    slots = workers * view.slots
    wait_ms = max(0, ahead + need.items - slots) * p50_ms / slots
    start_ms = 0.0 if view.ready else view.pool.startup_s * 1000
    return start_ms + wait_ms + p99_ms


def _limit_ms(need: Need) -> float:
    deadline_ms = math.inf if need.deadline_s is None else need.deadline_s * 1000
    return min(TIER_P99_MS[need.tier], deadline_ms)


def _usd_per_item(view: PoolView) -> float | None:
    """What an item costs on a worker that is kept busy."""
    if view.profile is not None and view.profile.items_per_s > 0:
        return view.pool.price_per_hour_usd / 3600 / view.profile.items_per_s
    if view.seconds_per_item is None:
        return None
    return view.pool.price_per_hour_usd / 3600 * view.seconds_per_item / view.slots


def _by_price(candidate: Candidate) -> tuple[float, float]:
    usd, p99_ms = candidate.usd_per_item, candidate.p99_ms
    return (math.inf if usd is None else usd, math.inf if p99_ms is None else p99_ms)


def _by_fallback(views: Sequence[PoolView]) -> Callable[[Candidate], tuple[bool, int]]:
    open_pools = {view.pool.name for view in views if view.is_open}
    order = {kind.value: place for place, kind in enumerate(FALLBACK_ORDER)}

    def key(candidate: Candidate) -> tuple[bool, int]:
        kind = order.get(candidate.pool.accelerator, len(order))
        return candidate.pool.name in open_pools, kind

    return key


def _why_none(need: Need, candidates: Sequence[Candidate]) -> str:
    reasons = "; ".join(f"{c.pool.name}: {c.reason}" for c in candidates)
    return f"no pool meets tier {need.tier}: {reasons}"
