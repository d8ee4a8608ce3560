"""What was used, by whom, of which model, on which day: sums that bills and reports are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import NamedTuple

from synapse.domain.job import Job, JobState, Usage
from synapse.domain.receipt import NO_COST, Cost

PICODOLLARS = 1_000_000_000_000
"""A dollar. Costs are added up as whole numbers, so that sums are exact in whatever order."""


class UsageKey(NamedTuple):
    """Whose usage it is, of what; `day` is that of the end in UTC, as `2026-11-21`."""

    tenant: str
    account: str
    model: str
    day: str


@dataclass(frozen=True, slots=True)
class Used:
    """Sums over requests that have ended. Costs are in picodollars.

    `errors` of the requests failed or expired; those that their caller cancelled are none.
    `cached_tokens` of the prompts were in an engine's prefix cache.
    """

    requests: int = 0
    errors: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    active: int = 0
    warm: int = 0

    def __add__(self, other: Used) -> Used:
        # Written out: this is done for every request.
        return Used(
            self.requests + other.requests,
            self.errors + other.errors,
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.active + other.active,
            self.warm + other.warm,
        )

    @property
    def cost(self) -> Cost:
        """In dollars."""
        return Cost(self.active / PICODOLLARS, self.warm / PICODOLLARS)


class Grouping(StrEnum):
    """By what a report tells usage apart."""

    KEY = "key"
    MODEL = "model"
    DAY = "day"


def day_of(at: float) -> str:
    """The day of a moment, in UTC."""
    return datetime.fromtimestamp(at, UTC).date().isoformat()


def one_request(usage: Usage | None = None, cost: Cost = NO_COST, *, failed: bool = False) -> Used:
    """What a single request used."""
    usage = usage or Usage()
    return Used(
        1,
        int(failed),
        usage.prompt_tokens,
        usage.completion_tokens,
        usage.cached_tokens or 0,
        round(cost.active_usd * PICODOLLARS),
        round(cost.warm_usd * PICODOLLARS),
    )


def used_by(job: Job) -> tuple[UsageKey, Used]:
    """What a job used that has ended.

    Raises:
        ValueError: it has not.
    """
    if job.finished_at is None:
        raise ValueError(f"job {job.id} has not ended: nobody knows yet what it used")
    key = UsageKey(job.tenant, job.account, job.model, day_of(job.finished_at))
    if job.was_refused:
        return key, Used()
    failed = job.state in (JobState.FAILED, JobState.EXPIRED)
    cost = NO_COST if job.served is None else Cost(job.served.active_usd, job.served.warm_usd)
    return key, one_request(job.usage, cost, failed=failed)


def summed(each: Iterable[tuple[UsageKey, Used]]) -> dict[UsageKey, Used]:
    """What was used under each key."""
    sums: dict[UsageKey, Used] = {}
    for key, used in each:
        sums[key] = sums[key] + used if key in sums else used
    return sums


def grouped(rows: Mapping[UsageKey, Used], by: Grouping) -> dict[str, Used]:
    """The same by account, model or day alone, in their order."""
    sums: dict[str, Used] = {}
    for key, used in rows.items():
        name = {Grouping.KEY: key.account, Grouping.MODEL: key.model, Grouping.DAY: key.day}[by]
        sums[name] = sums[name] + used if name in sums else used
    return dict(sorted(sums.items()))
