"""What is used of the limits of an account and of its tenant, and whether more may be.

A request reserves, before any work, what it may use. It is let in if that fits, on top of what
is used and reserved already, within the limits of both meters: its account's and its tenant's.
When it has ended its reservation is settled: tokens and dollars are corrected to what was really
used, the request stays counted, and it is no longer under way. So a limit is never passed by more
than reservations were too small.

Minutes and months are the calendar's, UTC. Money is counted in whole billionths of a dollar, so
that sums are exact in whatever order they are made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

from synapse.domain.access import NO_LIMITS, Limits, Principal
from synapse.domain.inference import ModelInput
from synapse.domain.job import Job, JobState
from synapse.domain.model import ModelSpec, Task

MINUTE_S = 60
NANO = 1_000_000_000
GRACE_S = 60
"""How long after its time is up a request counts as under way that nobody has settled."""

JOB_GRACE_S = 240
"""And how much longer a job does: it is settled by its record, also where that is left to the
sweeper, which comes each minute and may take some time for those before it (ADR 0035)."""

MINUTES_AHEAD = 2
MONTH_AHEAD_S = 86_400.0
"""How far ahead the window that is counted may be: clocks are set back a little now and then."""

BYTES_PER_TOKEN = 4


class MeterId(NamedTuple):
    """Whose use is counted: an account's, or (without one) that of all accounts of a tenant."""

    tenant: str
    account: str = ""


class ReservationId(NamedTuple):
    """One request of a tenant; `expires_at` is when it has ended in any case (epoch seconds)."""

    tenant: str
    name: str
    expires_at: int


Bounds = Mapping[MeterId, Limits]
"""The meters that a caller's requests are counted on: those that have a limit."""


def bounds_of(caller: Principal) -> Bounds:
    """The meters of a caller; empty, and at the price of two comparisons, if nothing limits it."""
    own, shared = caller.limits, caller.tenant_limits
    if own is NO_LIMITS and shared is NO_LIMITS:
        return {}
    bounds = {}
    if caller.account and own != NO_LIMITS:
        bounds[MeterId(caller.tenant, caller.account)] = own
    if shared != NO_LIMITS:
        bounds[MeterId(caller.tenant)] = shared
    return bounds


def is_limited(caller: Principal) -> bool:
    """Whether anything limits the caller: where nothing does nothing is counted."""
    return bool(bounds_of(caller))


def nano_usd(usd: float) -> int:
    """Dollars in billionths, rounded up: nothing is for free by rounding."""
    return math.ceil(usd * NANO)


def minute_of(now: float) -> int:
    """The number of a moment's minute."""
    return int(now // MINUTE_S)


def month_of(now: float) -> str:
    """The month of a moment, such as 2026-11 (UTC)."""
    return _month_of_day(int(now // 86_400))


@lru_cache(maxsize=4)
def _month_of_day(day: int) -> str:
    return time.strftime("%Y-%m", time.gmtime(day * 86_400))


@dataclass(frozen=True, slots=True)
class Used:
    """What a request has used. One that was never begun has used nothing, not even a request.

    `nano_usd` is what its slots cost, `warm_nano_usd` its share of keeping workers up. With
    `tokens_unknown` nobody can tell how many tokens it was: they count as they were reserved.
    """

    requests: int = 1
    tokens: int = 0
    nano_usd: int = 0
    warm_nano_usd: int = 0
    tokens_unknown: bool = False

    def __add__(self, other: Used) -> Used:
        return Used(
            self.requests + other.requests,
            self.tokens + other.tokens,
            self.nano_usd + other.nano_usd,
            self.warm_nano_usd + other.warm_nano_usd,
        )

    def spent(self, reservation: Reservation) -> int:
        """What counts against the month's budget, in billionths of a dollar.

        Keep-warm shares are not foreseen, so they count as far as the reservation reaches: the
        first caller after a quiet hour cannot be made to overdraw by what stood idle before.
        """
        left = max(0, reservation.nano_usd - self.nano_usd)
        return self.nano_usd + min(self.warm_nano_usd, left)


NOTHING_USED = Used(requests=0)


@dataclass(frozen=True, slots=True)
class Reservation:
    """What a request may use, reserved at `at` on some meters. `is_job` says that it has a record.

    It may be for several `requests` that are asked for at once: they are let in together or not at
    all, and count as so many. Its tokens count in the minute and its money in the month in which
    it was made, whenever it ends.
    """

    id: ReservationId
    meters: tuple[MeterId, ...]
    at: float
    tokens: int
    nano_usd: int = 0
    is_job: bool = False
    requests: int = 1

    @property
    def all_used(self) -> Used:
        """As much as was reserved: where nobody can tell what it was."""
        return Used(self.requests, self.tokens, self.nano_usd)

    def has_expired(self, now: float) -> bool:
        """Whether it is too late for whoever would settle it."""
        return self.id.expires_at + (JOB_GRACE_S if self.is_job else 0) <= now

    def counted_as(self, used: Used | None) -> Used:
        """What is counted in its place: where nobody can tell (None), as much as was reserved."""
        if used is None:
            return self.all_used
        return replace(used, tokens=self.tokens) if used.tokens_unknown else used


@dataclass(frozen=True, slots=True)
class Counts:
    """What a meter shows: used and reserved in a minute and in a month, and how many are open.

    `held` of the month's money is only reserved, by what is open: what it does not use comes back.
    """

    minute: int = 0
    requests: int = 0
    tokens: int = 0
    month: str = ""
    nano_usd: int = 0
    open: int = 0
    held: int = 0

    @property
    def spent(self) -> int:
        """What of the month's money does not come back (billionths of a dollar)."""
        return self.nano_usd - self.held

    def at(self, now: float) -> Counts:
        """What of it still counts: a new minute and a new month begin with nothing.

        So does one that is far behind those counted: the clock was ahead then, and is right again.
        """
        minute, month = minute_of(now), month_of(now)
        if minute == self.minute and month == self.month:
            return self
        new_minute = not minute <= self.minute <= minute + MINUTES_AHEAD
        new_month = not month <= self.month <= month_of(now + MONTH_AHEAD_S)
        return Counts(
            minute if new_minute else self.minute,
            0 if new_minute else self.requests,
            0 if new_minute else self.tokens,
            month if new_month else self.month,
            0 if new_month else self.nano_usd,
            self.open,
            0 if new_month else self.held,
        )

    def reserved(self, reservation: Reservation) -> Counts:
        """With what is reserved now."""
        # Each field by hand, here and below: `replace` takes three times as long.
        return Counts(
            self.minute,
            self.requests + reservation.requests,
            self.tokens + reservation.tokens,
            self.month,
            self.nano_usd + reservation.nano_usd,
            self.open + reservation.requests,
            self.held + reservation.nano_usd,
        )

    def with_open(self, reservation: Reservation) -> Counts:
        """With what is counted already, and open."""
        same_month = month_of(reservation.at) == self.month
        return replace(
            self,
            open=self.open + reservation.requests,
            held=self.held + (reservation.nano_usd if same_month else 0),
        )

    def settled(self, reservation: Reservation, used: Used) -> Counts:
        """With what was reserved and has ended; a window that has passed since is not touched."""
        same_minute = minute_of(reservation.at) == self.minute
        same_month = month_of(reservation.at) == self.month
        return Counts(
            self.minute,
            self.requests + (used.requests - reservation.requests if same_minute else 0),
            self.tokens + (used.tokens - reservation.tokens if same_minute else 0),
            self.month,
            self.nano_usd + (used.spent(reservation) - reservation.nano_usd if same_month else 0),
            self.open - reservation.requests,
            self.held - (reservation.nano_usd if same_month else 0),
        )


NOTHING_COUNTED = Counts()


ENGINES_MAX_TOKENS = 16
"""What vLLM, and our worker, write at most for who says nothing of it: jobs may."""


def tokens_of(spec: ModelSpec, value: ModelInput) -> int:
    """How many tokens are reserved: the prompt's by a rule of thumb, and all it may write."""
    prompt = value.size_bytes // BYTES_PER_TOKEN + 1
    if value.inputs:
        return prompt
    prompt = min(spec.context_tokens, prompt)
    # Left out, it is the engines' own default; None is as many as there can be.
    unsaid = ENGINES_MAX_TOKENS if spec.task is Task.GENERATE else None
    asked = value.parameters.get("max_tokens", unsaid)
    output = asked if isinstance(asked, int) else spec.max_output_tokens
    return prompt + value.samples * max(0, min(output, spec.context_tokens - prompt))


def reservation_id(tenant: str, name: str, expires_at: float) -> ReservationId:
    """Whose reservation it is that is made for a request whose time is up at `expires_at`."""
    return ReservationId(tenant, name, math.ceil(expires_at) + GRACE_S)


def reservation_of(job: Job) -> ReservationId:
    """The reservation of a job that is metered."""
    return reservation_id(job.tenant, job.id, job.deadline_at)


def used_by_job(job: Job) -> Used | None:
    """What a job that has ended has used; None if it was under way, and nobody can tell.

    A job that was given up, because workers went down with it, has used nothing that its account
    is to answer for. Of one that its engine was still at when its time was up, the money is known.
    """
    if job.was_refused:
        return NOTHING_USED
    if job.served is None and job.started_at is not None and job.state is not JobState.FAILED:
        return None
    tokens = job.usage.total_tokens if job.usage else 0
    if job.served is None:
        return Used(1, tokens)
    cut = job.state is JobState.EXPIRED and job.usage is None
    active, warm = nano_usd(job.served.active_usd), nano_usd(job.served.warm_usd)
    return Used(1, tokens, active, warm, tokens_unknown=cut)
