"""The direct lane: requests whose callers wait on the line, straight to a worker.

They are no jobs and leave no record (docs/adr/0015-direct-requests-leave-no-record.md). What is
admitted can be answered in time, by what was measured
(docs/adr/0016-admission-by-predicted-wait.md).
"""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from synapse.application.accounting import Accounting
from synapse.application.attempts import RETRY_AFTER_S, Attempts, PlaceInPool
from synapse.application.checks import MAX_INPUT_BYTES, check_input, served_model
from synapse.application.cold_start import ColdStart, ColdStarts
from synapse.application.direct_receipts import DirectReceipts
from synapse.application.fleet import Fleet
from synapse.application.generation import REFUSED, Admitted, Generation
from synapse.application.metering import Ask, Metering, Ticket
from synapse.application.routing import need_of
from synapse.application.seats import Seat, Seats, in_turn
from synapse.domain.access import ANYONE, Principal
from synapse.domain.admission import MAX_RETRY_AFTER_S, Demand
from synapse.domain.answer import Answered, Timings
from synapse.domain.errors import EngineUnavailable, InvalidRequest, Overloaded, Unavailable
from synapse.domain.inference import ModelInput, Result
from synapse.domain.job import SlaTier
from synapse.domain.limiting import Standing
from synapse.domain.loading import LOAD_FAILED, FailedLoad
from synapse.domain.metering import is_limited
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.receipt import Receipt
from synapse.domain.retry import RetryPolicy
from synapse.domain.routing import Decision, Need
from synapse.ports import Clock, Registry, Telemetry

DIRECT_TIER = SlaTier.SILVER
"""Of requests that name none."""

HOLD = RetryPolicy(base_s=0.1, max_s=1.0)
"""The pauses of a request that is held until a worker is there."""

ENTRY_GRACE_S = 30.0
"""How long after its caller's patience an entry counts whose holder has not given it back."""


@dataclass(frozen=True, slots=True)
class DirectRequest:
    """One request whose caller waits `timeout_s` from now.

    Who reads a stream waits so long for its start, since from then on there is news all the time;
    `stream_s` is all the time that a stream may take, None for an answer that is read whole.
    Requests with the same `affinity` go to the same worker where that is not too busy; without one
    those that begin alike do. `length_at` is where it says how long its answer may be.
    """

    id: str
    model: str
    input: ModelInput
    timeout_s: float
    tier: SlaTier = DIRECT_TIER
    caller: Principal = ANYONE
    stream_s: float | None = None
    affinity: str = ""
    length_at: str = "max_tokens"

    @property
    def whole_s(self) -> float:
        """All the time that the answer may take."""
        return self.timeout_s if self.stream_s is None else self.stream_s


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, who gave it, and what it cost; the others as of a `Generation`."""

    spec: ModelSpec
    pool: Pool
    result: Result
    timings: Timings
    receipt: Receipt
    keeps_tier: bool = False
    standing: Standing | None = None


@dataclass(frozen=True, slots=True)
class DirectLane:
    """The use case behind every synchronous route."""

    registry: Registry
    fleet: Fleet
    seats: Seats
    telemetry: Telemetry
    clock: Clock
    cold_starts: ColdStarts | None = None
    accounting: Accounting | None = None
    metering: Metering | None = None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[], float] = random.random

    @asynccontextmanager
    async def counted(
        self, requests: Sequence[DirectRequest]
    ) -> AsyncGenerator[Sequence[Ticket | None], None]:
        """Count requests that are one at their caller's together, before any of them is begun.

        What has not been begun when this is left does not count; raises as `begin` does.
        """
        if len(requests) < 2 or self.metering is None or not is_limited(requests[0].caller):
            yield [None] * len(requests)  # one alone is counted when it is begun
            return
        first, asks = requests[0], [await self._ask(request) for request in requests]
        tickets = await self.metering.admit(asks, first.id, self.clock() + first.whole_s)
        try:
            yield tickets
        finally:
            for ticket in tickets:
                await self.metering.forget(ticket)

    async def begin(self, request: DirectRequest, ticket: Ticket | None = None) -> Generation:
        """Admit a request; nothing is sent before the generation is asked for its answer.

        With a `ticket` it is counted already. The generation must be left (`async with`, or
        `aclose`), or its slots stay taken until the caller's time is up.

        Raises:
            RequestError: the request is at fault, or beyond its caller's limits.
            Overloaded: it would not be answered in time.
            Unavailable: no pool serves the model, or what is under way could not be counted.
        """
        ask = await self._ask(request)
        if self.metering is None or not is_limited(request.caller):
            return await self._begin(request, ask.spec, ask.need)
        if ticket is None:
            expires_at = self.clock() + request.whole_s
            [ticket] = await self.metering.admit([ask], request.id, expires_at)
        try:
            return await self._begin(request, ask.spec, ask.need, ticket)
        except BaseException:
            await self.metering.forget(ticket)
            raise

    async def _ask(self, request: DirectRequest) -> Ask:
        """A request, checked, as it is counted and placed."""
        if request.timeout_s <= 0:
            raise InvalidRequest("timeout: must be more than 0 seconds", param="timeout")
        spec = await served_model(self.registry, request.model, request.caller)
        request.caller.require_tier(request.tier)
        check_input(request.input, spec, MAX_INPUT_BYTES, request.length_at)
        need = need_of(spec, request.input, request.tier, request.whole_s, request.affinity)
        return Ask(request.caller, spec, request.input, need, request.whole_s, request.length_at)

    async def _begin(
        self, request: DirectRequest, spec: ModelSpec, need: Need, ticket: Ticket | None = None
    ) -> Generation:
        came_at = asyncio.get_running_loop().time()
        decision = await self.fleet.routing.decide(spec, need)
        if not decision.pools:
            raise Unavailable(f"no pool serves model {spec.name!r}")
        cold = await self.cold_starts.comes(spec, need) if self.cold_starts else None
        if cold and cold.failed and not cold.failed.is_due:
            self._tell_refused(spec)
            raise _not_loaded(spec, cold.failed)
        seat = await self._seat(request, spec, decision)
        if self.cold_starts and cold:
            try:
                await self.cold_starts.wake(spec, need)
            except BaseException:
                await self.seats.leave(seat)
                raise
        pools = _first(seat.entry.pool, in_turn(decision))
        place = self._place_in(seat, spec, decision, need)
        taken_by, whole_by = came_at + request.timeout_s, came_at + request.whole_s
        retry_after_s = _retry_after_s(request, cold)
        attempts = Attempts(pools, taken_by, HOLD, self.sleep, self.uniform, place, retry_after_s)
        standing = None if ticket is None else ticket.standing
        admitted = Admitted(
            request.id, spec, request.input, request.tier, whole_by, attempts, decision, standing
        )
        return Generation(admitted, self.fleet.engine, self._leaving(request, seat, cold, ticket))

    def _leaving(
        self, request: DirectRequest, seat: Seat, cold: ColdStart | None, ticket: Ticket | None
    ) -> Callable[[Generation], Awaitable[None]]:
        """What is done when the generation of a request is left."""

        async def leave(generation: Generation) -> None:
            try:
                await self._leave(request, seat, generation, cold)
            finally:
                if self.metering is not None and ticket is not None:
                    await _settle_limits(self.metering, ticket, generation)

        return leave

    async def run(self, request: DirectRequest, ticket: Ticket | None = None) -> Answer:
        """Answer a request as a whole; the ticket as in `begin`.

        Raises:
            RequestError, Overloaded, Unavailable: as `begin` does; or no worker took it in time.
            EngineError: it was refused, or broke off.
        """
        return await self.finish(await self.begin(request, ticket))

    async def finish(self, begun: Generation) -> Answer:
        """The whole answer of a request that was begun, which is left with it.

        Raises:
            Unavailable, EngineError: as `run` does.
        """
        async with begun as generation:
            result = await generation.result()
        receipt = generation.receipt
        assert receipt is not None, "it has been left"
        return Answer(
            generation.spec,
            generation.pool,
            result,
            generation.timings,
            receipt,
            generation.keeps_tier,
            generation.standing,
        )

    async def replay(self, request: DirectRequest, spec: ModelSpec, result: Result) -> Receipt:
        """The receipt of an answer that was kept: it cost nothing, and counts as a request."""
        receipt = Receipt(spec.version, usage=result.usage)
        if self.accounting is not None:
            await self.accounting.count(request.caller, spec.name, receipt)
        return receipt

    async def _seat(self, request: DirectRequest, spec: ModelSpec, decision: Decision) -> Seat:
        is_stream = request.stream_s is not None
        demand = Demand(request.input.samples, request.timeout_s, request.tier, is_stream)
        expires_at = self.clock() + request.whole_s + ENTRY_GRACE_S
        try:
            return await self.seats.take(spec, demand, decision, expires_at)
        except Overloaded:
            self._tell_refused(spec)
            raise

    def _tell_refused(self, spec: ModelSpec) -> None:
        self.telemetry.answered(Answered(spec.name, "", REFUSED, False, Timings()))

    def _place_in(self, seat: Seat, spec: ModelSpec, decision: Decision, need: Need) -> PlaceInPool:
        """Finds a worker in each pool that is tried, and counts the request there."""

        async def place(pool: Pool, avoid: Collection[str]) -> Pool:
            try:
                placed = await self.fleet.placement.place(spec, pool, need.affinity, avoid)
            except EngineUnavailable as error:
                failed = await self._failed_load(spec, need)
                if failed is not None and failed.is_off:
                    raise _not_loaded(spec, failed) from error
                raise
            await self.seats.move(seat, spec, pool, decision.of(pool.name).slots)
            return placed

        return place

    async def _failed_load(self, spec: ModelSpec, need: Need) -> FailedLoad | None:
        """Why those who are held wait in vain, if they do."""
        if self.cold_starts is None:
            return None
        return await self.cold_starts.failed(spec, need.requires)

    async def _leave(
        self, request: DirectRequest, seat: Seat, generation: Generation, cold: ColdStart | None
    ) -> None:
        await self.seats.leave(seat)
        receipts = DirectReceipts(self.clock, self.accounting, self.cold_starts)
        await receipts.write(request.caller, request.input, generation, cold)
        pool, timings = generation.pool.name, generation.timings
        self.telemetry.answered(
            Answered(
                seat.entry.model,
                "" if generation.told_as == REFUSED else pool,
                generation.told_as or generation.outcome,
                generation.is_success,
                timings,
                generation.usage,
            )
        )
        if not generation.is_success:
            return
        if cold is not None:
            waited_s = timings.total_s if timings.first_token_s is None else timings.first_token_s
            self.telemetry.cold_started(seat.entry.model, pool, waited_s)
        if pool == seat.entry.pool:
            await self.seats.measure(seat, timings.total_s - timings.held_s)


async def _settle_limits(metering: Metering, ticket: Ticket, generation: Generation) -> None:
    """Count what a request has used that is left; of one that no worker took, nothing."""
    if generation.was_refused:
        await metering.forget(ticket)
    else:
        await metering.settle(ticket, generation.receipt, was_cut=generation.was_cut)


def _retry_after_s(request: DirectRequest, cold: ColdStart | None) -> int:
    """What a caller is told whose time is up before a worker is."""
    left_s = 0.0 if cold is None else (cold.wait_s or 0.0) - request.timeout_s
    return min(MAX_RETRY_AFTER_S, max(RETRY_AFTER_S, math.ceil(left_s)))


def _not_loaded(spec: ModelSpec, failed: FailedLoad) -> Unavailable:
    """What a caller is told whose model no worker can load."""
    return Unavailable(
        f"model {spec.name!r} cannot be loaded: {failed.cause}",
        retry_after_s=min(MAX_RETRY_AFTER_S, max(RETRY_AFTER_S, math.ceil(failed.again_in_s))),
        code=LOAD_FAILED,
    )


def _first(name: str, pools: Sequence[Pool]) -> Sequence[Pool]:
    """The pools with the one of that name in front."""
    return sorted(pools, key=lambda pool: pool.name != name)
