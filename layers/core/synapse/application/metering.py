"""Limits of accounts and tenants: reserved before the work, settled when it has ended.

Whoever has no limits is not counted: that costs a comparison, and no call of anything.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from synapse.domain.access import Principal
from synapse.domain.errors import InvalidRequest, Unavailable
from synapse.domain.inference import ModelInput
from synapse.domain.job import Job, JobId, SlaTier
from synapse.domain.limiting import Standing, error_of
from synapse.domain.metering import (
    NOTHING_USED,
    Bounds,
    Reservation,
    ReservationId,
    Used,
    bounds_of,
    nano_usd,
    reservation_id,
    reservation_of,
    tokens_of,
    used_by_job,
)
from synapse.domain.model import ModelSpec
from synapse.domain.receipt import Receipt, estimated_usd
from synapse.domain.routing import Need, PoolView
from synapse.ports import Clock
from synapse.ports.meter import Meter

logger = logging.getLogger(__name__)

MOST_RUN_S = 600.0
"""A job runs no longer at a time: it is not reserved more, however long it may wait."""

Views = Callable[[ModelSpec, SlaTier], Awaitable[Sequence[PoolView]]]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a request wants, as far as it is limited.

    It takes `at_most_s` seconds; `length_at` is where it says how many tokens are to be written.
    """

    caller: Principal
    spec: ModelSpec
    input: ModelInput
    need: Need
    at_most_s: float
    length_at: str = "max_tokens"


@dataclass(slots=True)
class Tab:
    """What was reserved as one, for some requests; it is settled when all of them have ended."""

    id: ReservationId
    open: set[int]
    used: Used = NOTHING_USED

    def ended(self, at: int, used: Used) -> bool:
        """Add what one of them has used, once; whether it was the last of them."""
        if at not in self.open:
            return False
        self.open.remove(at)
        self.used += used
        return not self.open


@dataclass(frozen=True, slots=True)
class Ticket:
    """A request that was counted. `is_new` says that it was just now.

    `tokens` and `nano_usd` are what it was reserved, as number `at` of those on its `tab`.
    """

    tab: Tab
    at: int
    tokens: int
    nano_usd: int
    standing: Standing
    is_new: bool


@dataclass(frozen=True, slots=True)
class Metering:
    """The one place where requests are counted, whichever way they come in."""

    meter: Meter
    views: Views
    clock: Clock

    async def admit(
        self, asks: Sequence[Ask], name: str, expires_at: float
    ) -> Sequence[Ticket | None]:
        """Count requests on the line that are one at their caller's: all of them, or none.

        Each has a ticket, None if nothing limits the caller.

        Raises:
            InvalidRequest: one asks for more tokens than one request may.
            LimitReached: they do not fit within a limit.
            Unavailable: they could not be counted, or there is a budget and no pool to reckon by.
        """
        bounds = bounds_of(asks[0].caller)
        if not bounds:
            return [None] * len(asks)
        return await self._admit(asks, bounds, name, expires_at, is_job=False)

    async def admit_job(self, ask: Ask, job_id: JobId, deadline_at: float) -> Ticket | None:
        """Count a job that is about to be recorded, as `metered`; raises as `admit` does.

        One that is counted already, and has not ended, is let in and not counted again.
        """
        bounds = bounds_of(ask.caller)
        if not bounds:
            return None
        [ticket] = await self._admit([ask], bounds, job_id, deadline_at, is_job=True)
        return ticket

    async def forget(self, ticket: Ticket | None) -> None:
        """Take back what was counted for something that was not begun. Raises nothing."""
        if ticket is not None and ticket.is_new:
            await self._end(ticket, NOTHING_USED)

    async def forget_job(self, tenant: str, job_id: JobId, deadline_at: float) -> None:
        """The same for a job that was counted by somebody else, if it was. Raises nothing."""
        await self._settle(reservation_id(tenant, job_id, deadline_at), NOTHING_USED)

    async def settle(
        self, ticket: Ticket, receipt: Receipt | None, *, was_cut: bool = False
    ) -> None:
        """Correct what a request on the line has used; without a receipt it is what was reserved.

        So are the tokens of one that `was_cut`, by its caller or its deadline, before its worker
        told of any: nobody knows how far that had come. Raises nothing: what cannot be settled
        expires.
        """
        used = Used(1, ticket.tokens, ticket.nano_usd)
        if receipt is not None:
            tokens = receipt.usage.total_tokens
            if was_cut and tokens == 0:
                tokens = ticket.tokens
            active, warm = receipt.cost.active_usd, receipt.cost.warm_usd
            used = Used(1, tokens, nano_usd(active), nano_usd(warm))
        await self._end(ticket, used)

    async def job_ended(self, job: Job) -> None:
        """Correct what a job has used that has ended. Raises nothing, as `settle`."""
        if job.metered:
            await self._settle(reservation_of(job), used_by_job(job))

    async def recover(
        self, left_open: Sequence[Reservation], get: Callable[[JobId], Awaitable[Job | None]]
    ) -> None:
        """Settle what a process that died has left, by what has become of its jobs.

        Those that are open stay counted; of those that were never recorded nothing was used.
        """
        for reservation in left_open:
            job = await get(JobId(reservation.id.name))
            if job is None:
                await self._settle(reservation.id, NOTHING_USED)
            elif job.state.is_final:
                await self._settle(reservation.id, used_by_job(job))

    async def _admit(
        self, asks: Sequence[Ask], bounds: Bounds, name: str, expires_at: float, *, is_job: bool
    ) -> list[Ticket]:
        tokens = [tokens_of(ask.spec, ask.input) for ask in asks]
        for ask, of_it in zip(asks, tokens, strict=True):
            _check_size(ask, bounds, of_it)
        nano = await self._estimates(asks, bounds)
        counted_as = reservation_id(asks[0].caller.tenant, name, expires_at)
        asked = Reservation(
            counted_as, tuple(bounds), self.clock(), sum(tokens), sum(nano), is_job, len(asks)
        )
        verdict = await self.meter.reserve(asked, bounds)
        if verdict.refusal is not None:
            raise error_of(verdict.refusal, verdict.standing)
        tab = Tab(counted_as, set(range(len(asks))))
        return [
            Ticket(tab, at, tokens[at], nano[at], verdict.standing, verdict.is_new)
            for at in range(len(asks))
        ]

    async def _estimates(self, asks: Sequence[Ask], bounds: Bounds) -> list[int]:
        """What each is likely to cost, where anything depends on it (billionths of a dollar)."""
        if all(limits.monthly_usd is None for limits in bounds.values()):
            return [0] * len(asks)
        spec, tier = asks[0].spec, asks[0].need.tier
        views = await self.views(spec, tier)
        if not views:
            raise Unavailable(f"no pool serves model {spec.name!r}")
        return [
            nano_usd(estimated_usd(ask.need, views, min(ask.at_most_s, MOST_RUN_S))) for ask in asks
        ]

    async def _end(self, ticket: Ticket, used: Used) -> None:
        if ticket.tab.ended(ticket.at, used):
            await self._settle(ticket.tab.id, ticket.tab.used)

    async def _settle(self, counted_as: ReservationId, used: Used | None) -> None:
        try:
            await self.meter.settle(counted_as, used)
        except Unavailable as error:
            logger.warning("not settled: %s", error.message, extra={"request": counted_as.name})


def cut_to_limits(value: ModelInput, spec: ModelSpec, caller: Principal) -> ModelInput:
    """An input whose length is left open, with one that fits within its caller's limits.

    What is reserved for it otherwise, all of the context, may be more than a request of theirs may
    use, or a minute has: they could never ask without saying how much.

    Raises:
        InvalidRequest: that is less than it has to write.
    """
    if value.parameters.get("max_tokens", 0) is not None:
        return value
    sizes = [
        size
        for limits in bounds_of(caller).values()
        for size in (limits.max_tokens_per_request, limits.tokens_per_minute)
        if size is not None
    ]
    if not sizes or tokens_of(spec, value) <= min(sizes):
        return value
    prompt = tokens_of(spec, _writing(value, 0))
    most = max(1, (min(sizes) - prompt) // value.samples)
    least = value.parameters.get("min_tokens")
    if isinstance(least, int) and least > most:
        raise InvalidRequest(
            f"min_tokens: {least} is more than the {most} that the limits of this key or user "
            "leave for an answer",
            param="min_tokens",
        )
    return _writing(value, most)


def _writing(value: ModelInput, max_tokens: int) -> ModelInput:
    return replace(value, parameters={**value.parameters, "max_tokens": max_tokens})


def _check_size(ask: Ask, bounds: Bounds, tokens: int) -> None:
    """Refuse a request that may use more tokens than any one of its caller's.

    Raises:
        InvalidRequest: it does.
    """
    sizes = [limits.max_tokens_per_request for limits in bounds.values()]
    most = min((size for size in sizes if size is not None), default=tokens)
    if tokens <= most:
        return
    tools = " (its tools are part of it)" if ask.input.tools else ""
    at, counted = ask.length_at, f"the prompt's{tools} and those that it lets the model write"
    if ask.input.inputs:
        at, counted = "input", "those of its inputs"  # nothing is written for them
    raise InvalidRequest(
        f"{at}: a request of this key or user may use {most} tokens, {counted}; this one may use "
        f"{tokens}",
        param=at,
    )
