"""Which pool a request goes to: the cheapest whose predicted p99 fits its tier and its deadline.

Where none fits, the fallback order decides: who is well and up first, then the fastest kind of
accelerator. Everything that the choice was made from stands in the decision, so that it can be
explained.

What an item costs is what it adds to the bill. A worker that is kept up in any case costs nothing
more when it works; one that is started costs its start and its idle time afterwards, shared by all
who wait for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from synapse.domain.candidate import Candidate, by_fallback, by_price, soonest_start_ms
from synapse.domain.extension import NO_EXTENSIONS, Extensions
from synapse.domain.job import SlaTier
from synapse.domain.pool import Pool
from synapse.domain.prediction import NOTHING_LIVE, Live, Prediction, predicted, slot_ms
from synapse.domain.profile import Profile

__all__ = ["TIER_P99_MS", "Candidate", "Decision", "Need", "PoolView", "predicted_of", "route"]

TIER_P99_MS = {SlaTier.GOLD: 50.0, SlaTier.SILVER: 150.0, SlaTier.BRONZE: math.inf}
"""What a tier promises: of the whole answer, or of the first token where text is generated."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a request asks for: its tier, its size, and how long it may take in all.

    `first_token_only` says that the tier's promise is about the first token, as it is for text
    that is generated; the deadline is about the whole answer always. Requests with the same
    `affinity` had better meet the same worker (its prefix cache). Pools whose engines have not all
    that it `requires` are left out.
    """

    tier: SlaTier
    items: int = 1
    prompt_tokens: int = 0
    output_tokens: int = 0
    deadline_s: float | None = None
    first_token_only: bool = False
    affinity: str = ""
    requires: Extensions = NO_EXTENSIONS


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool as it stands when the choice is made.

    `ready` workers answer for the model, `starting` ones soon will, the first in `starts_in_s`
    (None: the pool's `startup_s`); each takes `slots` items at once. `kept` workers are up
    whether there is work or not. `in_flight` items are under way in the pool, `queued` ones wait
    before the newcomer. `seconds_per_item` is the slot time measured lately, None where nothing
    was, and `live` what calls took lately. `is_open` says that its circuit breaker lets nothing
    through, `is_doubtful` that it does so for answers that came, though much too late or without
    sense. `room` is how many bronze items may enter beside better ones, None if any number.
    One that `is_spare` has a worker up for other models that has nothing to do.
    """

    pool: Pool
    slots: int
    ready: int
    starting: int = 0
    starts_in_s: float | None = None
    kept: int = 0
    in_flight: int = 0
    queued: int = 0
    profile: Profile | None = None
    seconds_per_item: float | None = None
    live: Live = NOTHING_LIVE
    is_open: bool = False
    is_doubtful: bool = False
    room: int | None = None
    is_spare: bool = False

    def sharers(self, items: int) -> int:
        """Among how many items a worker's time is shared out, of which `items` come together."""
        return max(1, min(self.slots, items) if self.pool.paid_by_call else self.slots)


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
        return bool(self.pools) and self.of(self.pools[0].name).is_cold

    def of(self, pool: str) -> Candidate:
        """The candidate of that name.

        Raises:
            KeyError: there is none.
        """
        for candidate in self.candidates:
            if candidate.pool.name == pool:
                return candidate
        raise KeyError(pool)

    def takers(self) -> list[Candidate]:
        """The pools that are given work now: up and well, or where none is, those in doubt."""
        well = [each for each in self.candidates if each.is_well]
        return well or [each for each in self.candidates if each.is_doubtful]

    def is_full(self) -> bool:
        """Whether bronze would be given to a pool that lets none begin now, whichever it is."""
        takers = self.takers()
        return bool(takers) and all(each.is_full for each in takers)

    def soonest_start_ms(self) -> float:
        """When the first answer of a pool at zero is to be had (p99); infinite if there is none."""
        return soonest_start_ms(self.candidates)


def route(need: Need, views: Sequence[PoolView]) -> Decision:
    """Judge every pool and put them in the order in which they are to be tried.

    Those that fit come first, the cheapest in front, of those that cost the same now the one that
    is cheaper when busy, and of those the quicker; but bronze goes last where it would have to
    yield to better tiers. The others follow in the fallback order: who is well, in time for the
    deadline and up, who keeps the promise as a rule, the fastest kind; but who is up and would
    answer later than a worker that starts comes after that. Who lacks what is required
    is left out, unless all do: then an engine says that it cannot be had.
    """
    candidates = [_judged(need, view) for view in views]
    able = [each for each in candidates if not each.pool.lacks(need.requires)] or candidates
    ordered = able if len(able) == 1 else _ordered(able)
    fallback = "" if not ordered or ordered[0].fits else _why_none(need, candidates)
    return Decision(tuple(candidates), tuple([c.pool for c in ordered]), fallback)


def _ordered(candidates: Sequence[Candidate]) -> list[Candidate]:
    fitting = sorted([c for c in candidates if c.fits], key=by_price)
    others, start_ms = [c for c in candidates if not c.fits], soonest_start_ms(candidates)
    return fitting + sorted(others, key=lambda candidate: by_fallback(candidate, start_ms))


def _judged(need: Need, view: PoolView) -> Candidate:
    prediction = predicted_of(need, view)
    busy_usd = _busy_usd(need, view)
    usd = _usd(need, view, busy_usd)
    is_cold = view.ready == 0
    meets_deadline = _meets_deadline(need, prediction)
    must_yield = (
        need.tier is SlaTier.BRONZE and view.room is not None and need.items > max(0, view.room)
    )
    fits, reason = _verdict(need, view, prediction, meets_deadline)
    if fits and must_yield:
        reason += "; it has no room for bronze at present"
    return Candidate(
        view.pool,
        max(1, view.ready) * view.slots,
        prediction,
        usd,
        busy_usd,
        is_cold,
        view.is_open,
        fits,
        meets_deadline,
        _is_late(need, prediction),
        must_yield,
        reason,
        view.is_doubtful,
        view.room if need.tier is SlaTier.BRONZE else None,
    )


def predicted_of(need: Need, view: PoolView) -> Prediction | None:
    """What is to be expected of the pool; None if nothing is known of it."""
    start_s = view.pool.startup_s if view.starts_in_s is None else view.starts_in_s
    return predicted(
        need.prompt_tokens,
        need.output_tokens,
        items=need.items,
        ahead=view.in_flight + view.queued,
        workers=view.ready,
        slots=view.slots,
        start_ms=0.0 if view.ready else start_s * 1000,
        profile=view.profile,
        seconds_per_item=view.seconds_per_item,
        live=view.live,
    )


def _verdict(
    need: Need, view: PoolView, prediction: Prediction | None, meets_deadline: bool
) -> tuple[bool, str]:
    lacking = view.pool.lacks(need.requires)
    if lacking:
        return False, f"its engines have no {', '.join(sorted(lacking))}"
    if view.is_open:
        return False, "its circuit breaker is open"
    if view.ready == 0 and view.starting == 0 and view.pool.max_workers == 0:
        return False, "it has no worker and may start none"
    if prediction is None:
        # Nothing to say against it; who asks for nothing in particular may be the first to try.
        return need.tier is SlaTier.BRONZE, "nothing was measured of it yet"
    if not meets_deadline:
        whole_ms, deadline_ms = prediction.whole_p99_ms, (need.deadline_s or 0.0) * 1000
        return (
            False,
            f"predicted p99 {whole_ms:.0f} ms is beyond the deadline, {deadline_ms:.0f} ms",
        )
    promise_ms = TIER_P99_MS[need.tier]
    what = "of the first token " if need.first_token_only else ""
    p99_ms = prediction.first_p99_ms if need.first_token_only else prediction.whole_p99_ms
    if p99_ms > promise_ms:
        return False, f"predicted p99 {what}{p99_ms:.0f} ms is more than {promise_ms:.0f} ms"
    limit = "" if promise_ms == math.inf else f" fits {promise_ms:.0f} ms"
    return True, f"predicted p99 {what}{p99_ms:.0f} ms{limit}"


def _meets_deadline(need: Need, prediction: Prediction | None) -> bool:
    if need.deadline_s is None or prediction is None:
        return True
    return prediction.whole_p99_ms <= need.deadline_s * 1000


def _is_late(need: Need, prediction: Prediction | None) -> bool:
    if prediction is None:
        return True
    median_ms = prediction.first_p50_ms if need.first_token_only else prediction.whole_p50_ms
    return median_ms > TIER_P99_MS[need.tier]


def _busy_usd(need: Need, view: PoolView) -> float | None:
    """What an item costs on a worker that is kept busy."""
    usd_per_s = view.pool.price_per_hour_usd / 3600
    if usd_per_s == 0:
        return 0.0
    if view.profile is not None:
        side_by_side = view.profile.together(view.sharers(need.items))
        took_ms = view.profile.p50_ms(need.prompt_tokens, need.output_tokens, side_by_side)
        return usd_per_s * took_ms / 1000 / side_by_side
    took = slot_ms(view.seconds_per_item)
    return None if took is None else usd_per_s * took / 1000 / view.sharers(need.items)


def _usd(need: Need, view: PoolView, busy_usd: float | None) -> float | None:
    """What an item adds to the bill as things stand."""
    under_way = view.in_flight + view.queued + need.items
    # What is paid by the call costs as much where it is kept warm.
    kept = 0 if view.pool.paid_by_call else min(view.kept, view.ready)
    if view.is_spare or under_way <= kept * view.slots:
        return 0.0
    if view.ready or view.starting or busy_usd is None:
        return busy_usd
    up_s = view.pool.startup_s + view.pool.idle_after_s
    return busy_usd + view.pool.price_per_hour_usd / 3600 * up_s / under_way


def _why_none(need: Need, candidates: Sequence[Candidate]) -> str:
    reasons = "; ".join(f"{c.pool.name}: {c.reason}" for c in candidates)
    return f"no pool meets tier {need.tier}: {reasons}"
