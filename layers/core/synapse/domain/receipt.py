"""What a request cost, and where its time went.

A worker's price is paid by the hour, whatever it does. It is shared out in two parts: a request's
`active` share is for the slots it held while it ran, the `keep-warm` share for time in which the
pool was up and had free slots (docs/adr/0035-receipts.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from synapse.domain.job import Job, Usage
from synapse.domain.pool import Pool
from synapse.domain.prediction import UNKNOWN_SPREAD
from synapse.domain.routing import Need, PoolView

SPREAD_OVER_S = 60.0
"""Over how many seconds of a worker's work an idle time is spread."""

MAX_IDLE_S = 3600.0
"""How much idle time of a worker may wait to be paid by requests; the rest is the operator's."""


@dataclass(frozen=True, slots=True)
class Cost:
    """US dollars: for the slots that were held, and for keeping workers up."""

    active_usd: float = 0.0
    warm_usd: float = 0.0

    @property
    def total_usd(self) -> float:
        """Both together."""
        return self.active_usd + self.warm_usd

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.active_usd + other.active_usd, self.warm_usd + other.warm_usd)


NO_COST = Cost()


def total_cost(costs: Iterable[Cost]) -> Cost:
    """All of them together."""
    return sum(costs, NO_COST)


@dataclass(frozen=True, slots=True)
class Receipt:
    """Where a request's time went, who served it, and what it cost.

    It waited `queue_ms`; for `cold_ms` of that no worker was up for it. `batch_size` is how many
    requests were given to the worker together. What was answered from a cache has no pool.
    """

    version: str
    queue_ms: float = 0.0
    cold_ms: float = 0.0
    inference_ms: float = 0.0
    batch_size: int = 1
    pool: str = ""
    accelerator: str = ""
    worker: str = ""
    usage: Usage = field(default_factory=Usage)
    cost: Cost = NO_COST


def receipt_of(job: Job) -> Receipt | None:
    """The receipt of a job; None until it has ended, and if it ended before it ran."""
    if not job.state.is_final or job.served is None:
        return None
    served = job.served
    started_at = job.started_at or job.created_at
    finished_at = job.finished_at or started_at
    return Receipt(
        job.version,
        max(0.0, started_at - job.created_at) * 1000,
        served.cold_ms,
        max(0.0, finished_at - started_at) * 1000,
        served.batch_size,
        served.pool,
        served.accelerator,
        served.worker,
        job.usage or Usage(),
        Cost(served.active_usd, served.warm_usd),
    )


def combined(receipts: Sequence[Receipt], batch_size: int = 1) -> Receipt:
    """One receipt for requests that were answered together, as one; there is at least one.

    They ran side by side, so the longest times count; tokens and dollars add up. Where they were
    served by several workers none is named.
    """
    first = receipts[0]
    if len(receipts) == 1:
        return first
    names = {(each.pool, each.accelerator, each.worker) for each in receipts}
    pool, accelerator, worker = names.pop() if len(names) == 1 else ("", "", "")
    cached = [r.usage.cached_tokens for r in receipts if r.usage.cached_tokens is not None]
    return replace(
        first,
        queue_ms=max(each.queue_ms for each in receipts),
        cold_ms=max(each.cold_ms for each in receipts),
        inference_ms=max(each.inference_ms for each in receipts),
        batch_size=max(batch_size, *(each.batch_size for each in receipts)),
        pool=pool,
        accelerator=accelerator,
        worker=worker,
        usage=Usage(
            sum(each.usage.prompt_tokens for each in receipts),
            sum(each.usage.completion_tokens for each in receipts),
            sum(cached) if cached else None,
        ),
        cost=total_cost(each.cost for each in receipts),
    )


def cold_ms(came_at: float, started_at: float, up_at: float | None) -> float:
    """Of a wait from `came_at` to `started_at`, how much passed until a worker was up."""
    if up_at is None:
        return 0.0
    return max(0.0, min(up_at, started_at) - came_at) * 1000


def work_s(seconds: float, items: int, slots: int) -> float:
    """The seconds of a whole worker in `items` that ran so long, each in one of its slots.

    More items than slots take turns: they never have more than the worker.
    """
    return max(0.0, seconds) * min(1.0, items / max(1, slots))


def usd(pool: Pool, worker_s: float) -> float:
    """The price of so many seconds of one of the pool's workers."""
    return pool.price_per_hour_usd / 3600 * worker_s


@dataclass(frozen=True, slots=True)
class IdleTime:
    """Worker-seconds of a pool that were up and idle, until `at`, and that nobody paid for yet.

    Each request takes a share of them, in proportion to its work: `SPREAD_OVER_S` of work take
    all but 1/e. So in the long run requests pay for what is idle, whatever the load; the first
    after a quiet night does not pay for all of it; and none pays more than
    `MAX_IDLE_S / SPREAD_OVER_S` times what its work costs, for each worker.
    """

    at: float
    idle_s: float = 0.0

    def until(self, now: float, up_s: float, busy_s: float, workers: int = 1) -> IdleTime:
        """With the time since `at`, in which the workers were up and busy for so long together."""
        idle_s = self.idle_s + up_s - busy_s
        return IdleTime(max(now, self.at), min(max(0.0, idle_s), MAX_IDLE_S * max(1, workers)))

    def share_s(self, busy_s: float) -> float:
        """What a request takes that did so much work."""
        return self.idle_s * -math.expm1(-busy_s / SPREAD_OVER_S)

    def less(self, taken_s: float) -> IdleTime:
        """With so much of it taken."""
        return IdleTime(self.at, max(0.0, self.idle_s - taken_s))

    def charged(
        self, now: float, up_since: Sequence[float], busy_s: float
    ) -> tuple[IdleTime, float]:
        """What is left after a request that ended `now`, and what that request takes.

        The pool's workers are up since then; what they did before `at` is settled.
        """
        up_s = sum(max(0.0, now - max(since, self.at)) for since in up_since)
        idle = self.until(now, up_s, busy_s, len(up_since))
        taken_s = idle.share_s(busy_s)
        return idle.less(taken_s), taken_s


def estimated_usd(need: Need, views: Sequence[PoolView], at_most_s: float) -> float:
    """What a request should be reserved before it runs: its active share where it is dearest.

    In the worst of the pools that can take it, at the 99th percentile among as many as a worker
    takes; where nothing was measured, for the whole time that it may take. What it pays for
    keeping workers warm is not known before it has run.

    Raises:
        ValueError: there is no pool: that is not for free, but unknown.
    """
    if not views:
        raise ValueError("there is no pool to estimate by")
    able = [view for view in views if not view.pool.lacks(need.requires)] or views
    return max(_estimate(need, view, at_most_s) for view in able)


def _estimate(need: Need, view: PoolView, at_most_s: float) -> float:
    took_s, sharers = at_most_s, view.sharers(need.items)
    if view.profile is not None:
        p99_ms = view.profile.p99_ms(need.prompt_tokens, need.output_tokens, sharers)
        took_s = min(at_most_s, p99_ms / 1000)
    elif view.seconds_per_item is not None:
        took_s = min(at_most_s, UNKNOWN_SPREAD * view.seconds_per_item)
    # Beyond a worker's slots the items go to others, or take turns: all of them are paid.
    return usd(view.pool, took_s * need.items / sharers)
