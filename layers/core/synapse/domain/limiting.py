"""Whether a request may be let in, and what its caller is told of what is left."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

from synapse.domain.access import Limits
from synapse.domain.errors import LimitReached
from synapse.domain.metering import MINUTE_S, NANO, Bounds, Counts, MeterId, Reservation

OUT_OF_BUDGET = "insufficient_quota"
"""OpenAI's code of it."""

CONCURRENCY_RETRY_S = 2
"""Nobody knows when something ends that is under way: a moment, then the next try."""


class Measure(IntEnum):
    """What is limited. Of several in the way that hold as long the first is told."""

    SPEND = 0
    REQUESTS = 1
    TOKENS = 2
    CONCURRENT = 3


@dataclass(frozen=True, slots=True)
class Refusal:
    """Which limit of which meter leaves no room for what is `needed`, in the measure's own unit.

    With `retry_after_s` None there will be none by waiting. `is_held` says that it is only what is
    under way that is in the way.
    """

    measure: Measure
    meter: MeterId
    limit: float
    needed: int
    retry_after_s: int | None

    @property
    def is_held(self) -> bool:
        """See above: money that is only reserved, or too much at once."""
        waits = self.retry_after_s is not None
        return waits and self.measure in (Measure.SPEND, Measure.CONCURRENT)


class Left(NamedTuple):
    """What is left of a limit."""

    amount: int
    limit: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What is left until the minute ends in `reset_s`: of each limit that of the scarcer meter."""

    requests: Left | None = None
    tokens: Left | None = None
    reset_s: float = 0.0

    def headers(self) -> dict[str, str]:
        """The same, as OpenAI's clients read it."""
        headers = {}
        for name, left in (("requests", self.requests), ("tokens", self.tokens)):
            if left is not None:
                headers[f"x-ratelimit-limit-{name}"] = str(left.limit)
                headers[f"x-ratelimit-remaining-{name}"] = str(left.amount)
                headers[f"x-ratelimit-reset-{name}"] = duration(self.reset_s)
        return headers


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a request was let in (no refusal), and what is left.

    `is_new` says that this very call has counted it, and not an earlier one.
    """

    refusal: Refusal | None
    standing: Standing
    is_new: bool = True


def verdict_on(bounds: Bounds, counts: Mapping[MeterId, Counts], asked: Reservation) -> Verdict:
    """Decide on a reservation; `counts` are what its meters show at its moment."""
    refusal = refusal_of(bounds, counts, asked)
    if refusal is None:
        counts = {meter: counts[meter].reserved(asked) for meter in bounds}
    return Verdict(refusal, standing_of(bounds, counts, asked.at), is_new=refusal is None)


def refusal_of(
    bounds: Bounds, counts: Mapping[MeterId, Counts], asked: Reservation
) -> Refusal | None:
    """What is in the way of a reservation, if anything is."""
    refusals = [
        refusal
        for meter, limits in bounds.items()
        for refusal in _refusals(meter, limits, counts[meter], asked)
    ]
    return min(refusals, key=_gravity, default=None)


def _gravity(refusal: Refusal) -> tuple[float, Measure]:
    """What holds for longest comes first."""
    wait_s = math.inf if refusal.retry_after_s is None else refusal.retry_after_s
    return -wait_s, refusal.measure


def rooms(limits: Limits, asked: Reservation) -> Iterator[tuple[Measure, float, int]]:
    """Of each limit how much of it may be in use for a reservation to fit, and what it needs."""
    budget = None if limits.monthly_usd is None else limits.monthly_usd * NANO
    for measure, limit, needed in (
        (Measure.SPEND, budget, asked.nano_usd),
        (Measure.REQUESTS, limits.requests_per_minute, asked.requests),
        (Measure.TOKENS, limits.tokens_per_minute, asked.tokens),
        (Measure.CONCURRENT, limits.concurrent_jobs, asked.requests),
    ):
        if limit is not None:
            # What is used up has no room left, not even for what is thought to cost nothing.
            yield measure, limit - max(1, needed), needed


def _refusals(
    meter: MeterId, limits: Limits, counts: Counts, asked: Reservation
) -> Iterator[Refusal]:
    minute_ends_s = max(1, math.ceil((counts.minute + 1) * MINUTE_S - asked.at))
    used_and_wait: dict[Measure, tuple[int, int]] = {
        Measure.SPEND: (counts.nano_usd, CONCURRENCY_RETRY_S),
        Measure.REQUESTS: (counts.requests, minute_ends_s),
        Measure.TOKENS: (counts.tokens, minute_ends_s),
        Measure.CONCURRENT: (counts.open, CONCURRENCY_RETRY_S),
    }
    for measure, room, needed in rooms(limits, asked):
        used, wait_s = used_and_wait[measure]
        if used > room:
            fits_at_all = (counts.spent if measure is Measure.SPEND else 0) <= room
            limit = room + max(1, needed)
            yield Refusal(measure, meter, limit, needed, wait_s if fits_at_all else None)


def standing_of(bounds: Bounds, counts: Mapping[MeterId, Counts], now: float) -> Standing:
    """What is left of the minute."""
    requests, tokens = [], []
    for meter, limits in bounds.items():
        if limits.requests_per_minute is not None:
            requests.append(_left(limits.requests_per_minute, counts[meter].requests))
        if limits.tokens_per_minute is not None:
            tokens.append(_left(limits.tokens_per_minute, counts[meter].tokens))
    reset_s = MINUTE_S - now % MINUTE_S
    return Standing(min(requests, default=None), min(tokens, default=None), reset_s)


def _left(limit: int, used: int) -> Left:
    return Left(max(0, limit - used), limit)


def duration(seconds: float) -> str:
    """A duration in the way in which OpenAI's headers have it: 12ms, 1.5s, 6m0s."""
    milliseconds = max(1, math.ceil(seconds * 1000))
    if milliseconds < 1000:
        return f"{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    return f"{minutes}m{rest / 1000:g}s" if minutes else f"{rest / 1000:g}s"


def error_of(refusal: Refusal, standing: Standing) -> LimitReached:
    """What the caller is told of a refusal. Of a tenant's use one of its keys is told nothing."""
    whose = "this key or user" if refusal.meter.account else "the tenant"
    if refusal.measure is Measure.SPEND and not refusal.is_held:
        message = (
            f"the budget of {whose} of {refusal.limit / NANO:g} USD a month is used up, or what is "
            f"left of it is less than this request may cost ({refusal.needed / NANO:.6f} USD); "
            "ask for a larger one, or wait for the next month (UTC)"
        )
        code = OUT_OF_BUDGET
    else:
        message = f"{_said(refusal, whose)}; {_advice(refusal)}"
        code = "rate_limit_exceeded"
    return LimitReached(
        message, retry_after_s=refusal.retry_after_s, code=code, headers=standing.headers()
    )


def _said(refusal: Refusal, whose: str) -> str:
    limit = int(refusal.limit)
    many = f", and this one counts as {refusal.needed}" if refusal.needed > 1 else ""
    match refusal.measure:
        case Measure.SPEND:
            return (
                f"what is left of the budget of {whose} of {refusal.limit / NANO:g} USD a month is "
                "reserved by jobs and requests under way, and this one may cost "
                f"{refusal.needed / NANO:.6f} USD; what they do not use comes back"
            )
        case Measure.REQUESTS:
            return f"{whose} may send {limit} requests a minute{many}"
        case Measure.TOKENS:
            return (
                f"{whose} may use {limit} tokens a minute, and this request may use "
                f"{refusal.needed} (its prompt and max_tokens)"
            )
        case _:
            return f"{whose} may have {limit} jobs and requests under way at once{many}"


def _advice(refusal: Refusal) -> str:
    if refusal.retry_after_s is not None:
        return f"try again in {refusal.retry_after_s} s"
    if refusal.measure is Measure.TOKENS:
        return "send a shorter prompt or a smaller max_tokens"
    if refusal.needed > 1:
        return "send fewer prompts in one request"
    return "ask for a higher limit"
