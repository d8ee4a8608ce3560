"""The direct lane: requests whose callers wait on the line, straight to a worker.

They are no jobs and leave no record (docs/adr/0015-direct-requests-leave-no-record.md). What is
admitted can be answered in time, by what was measured
(docs/adr/0016-admission-by-predicted-wait.md).
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import sys
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from synapse.application.attempts import RETRY_AFTER_S, Attempts
from synapse.application.checks import MAX_INPUT_BYTES, check_input, served_model
from synapse.application.cold_start import ColdStart, ColdStarts
from synapse.application.generation import Admitted, Generation, SampleDelta
from synapse.application.routing import need_of
from synapse.domain.admission import (
    MAX_RETRY_AFTER_S,
    AdmissionPolicy,
    Demand,
    Speed,
    slot_time_s,
)
from synapse.domain.answer import Answered, Timings
from synapse.domain.errors import InvalidRequest, Overloaded, Unavailable
from synapse.domain.inference import ModelInput, Result
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec, ServiceSample
from synapse.domain.pace import Pacemaker
from synapse.domain.pool import Pool
from synapse.domain.retry import RetryPolicy
from synapse.ports import Clock, Entry, InFlight, Registry, StreamingEngine, Telemetry

__all__ = ["Answer", "DirectLane", "DirectRequest", "Generation", "SampleDelta"]

logger = logging.getLogger(__name__)

HOLD = RetryPolicy(base_s=0.1, max_s=1.0)
"""The pauses of a request that is held until a worker is there."""

ENTRY_GRACE_S = 30.0
"""How long after its caller's patience an entry counts whose holder has not given it back."""

NO_LIMIT = sys.maxsize
"""Who comes when no worker is up is held, however many there are."""

ENGINE_PRIORITIES = {SlaTier.GOLD: -1, SlaTier.SILVER: 0, SlaTier.BRONZE: 1}
"""On vLLM's scale: lower runs first, 0 is ordinary."""


@dataclass(frozen=True, slots=True)
class DirectRequest:
    """One request whose caller waits `timeout_s` from now.

    Who reads a stream waits so long for its start, since from then on there is news all the time;
    `stream_s` is all the time that a stream may take, None for an answer that is read whole.
    Requests with the same `affinity` go to the same worker where that is not too busy; without one
    those that begin alike do.
    """

    id: str
    model: str
    input: ModelInput
    timeout_s: float
    tier: SlaTier = SlaTier.SILVER
    tenant: str = "default"
    stream_s: float | None = None
    affinity: str = ""

    @property
    def whole_s(self) -> float:
        """All the time that the answer may take."""
        return self.timeout_s if self.stream_s is None else self.stream_s


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer, and who gave it; `keeps_tier` as of a `Generation`."""

    spec: ModelSpec
    pool: Pool
    result: Result
    timings: Timings
    keeps_tier: bool = False


def _pacemakers() -> defaultdict[tuple[str, str], Pacemaker]:
    return defaultdict(Pacemaker)


@dataclass(frozen=True, slots=True)
class DirectLane:
    """The use case behind every synchronous route; `pacemakers` are by model and pool."""

    registry: Registry
    engine: StreamingEngine
    in_flight: InFlight
    telemetry: Telemetry
    clock: Clock
    policy: AdmissionPolicy = field(default_factory=AdmissionPolicy)
    pacemakers: defaultdict[tuple[str, str], Pacemaker] = field(default_factory=_pacemakers)
    max_input_bytes: int = MAX_INPUT_BYTES
    cold_starts: ColdStarts | None = None
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[], float] = random.random

    async def begin(self, request: DirectRequest) -> Generation:
        """Admit a request; nothing is sent before the generation is asked for its answer.

        The generation must be left (`async with`, or `aclose`), or its slots stay taken until the
        caller's time is up.

        Raises:
            RequestError: the request is at fault.
            Overloaded: it would not be answered in time.
            Unavailable: no pool serves the model, or what is under way could not be counted.
        """
        if request.timeout_s <= 0:
            raise InvalidRequest("timeout: must be more than 0 seconds", param="timeout")
        spec = await served_model(self.registry, request.model)
        check_input(request.input, spec, self.max_input_bytes)
        pools = tuple(await self.registry.pools(spec.name))
        if not pools:
            raise Unavailable(f"no pool serves model {spec.name!r}")
        now = asyncio.get_running_loop().time()
        need = need_of(spec, request.input, request.tier, request.whole_s, request.affinity)
        cold = await self.cold_starts.comes(spec, need) if self.cold_starts else None
        entry = await self._enter(request, spec, pools[0], cold)
        if self.cold_starts and cold:
            await self.cold_starts.wake(spec, need)
        admitted = Admitted(
            request.id,
            spec,
            request.input,
            ENGINE_PRIORITIES[request.tier],
            now + request.whole_s,
            Attempts(
                pools,
                now + request.timeout_s,
                HOLD,
                self.sleep,
                self.uniform,
                retry_after_s=_retry_after_s(request, cold),
            ),
        )
        return Generation(
            admitted, self.engine, lambda generation: self._leave(entry, generation, cold)
        )

    async def run(self, request: DirectRequest) -> Answer:
        """Answer a request as a whole.

        Raises:
            RequestError, Overloaded, Unavailable: as `begin` does; or no worker took it in time.
            EngineError: it was refused, or broke off.
        """
        async with await self.begin(request) as generation:
            result = await generation.result()
        return Answer(
            generation.spec, generation.pool, result, generation.timings, generation.keeps_tier
        )

    async def _enter(
        self, request: DirectRequest, spec: ModelSpec, pool: Pool, cold: ColdStart | None
    ) -> Entry:
        now = self.clock()
        rate = await self.registry.service_rate(spec.name, now, pool.name)
        pace = self.pacemakers[spec.name, pool.name].pace(now)
        speed = Speed(pool.slots_of(spec), rate, pace)
        is_stream = request.stream_s is not None
        demand = Demand(request.input.samples, request.timeout_s, request.tier, is_stream)
        at_most = self.policy.limit(demand, speed) if cold is None else NO_LIMIT
        entry = await self.in_flight.enter(
            spec.name,
            pool.name,
            demand.items,
            at_most,
            now + request.whole_s + ENTRY_GRACE_S,
        )
        if entry is not None:
            return entry
        self.telemetry.answered(Answered(spec.name, "", "refused", False, Timings()))
        in_flight = await self.in_flight.count(spec.name, pool.name)
        raise Overloaded(
            f"model {spec.name!r} has {in_flight} requests under way, too many to answer another "
            f"within {request.timeout_s:g} s; try again later",
            retry_after_s=self.policy.retry_after_s(demand, in_flight, speed),
        )

    async def _leave(self, entry: Entry, generation: Generation, cold: ColdStart | None) -> None:
        await self.in_flight.leave(entry)
        pool, timings = generation.pool.name, generation.timings
        self.telemetry.answered(
            Answered(
                entry.model,
                pool,
                generation.outcome,
                generation.is_success,
                timings,
                generation.usage,
            )
        )
        if not generation.is_success:
            return
        if cold is not None:
            waited_s = timings.total_s if timings.first_token_s is None else timings.first_token_s
            self.telemetry.cold_started(entry.model, pool, waited_s)
        await self._measure(entry, generation)

    async def _measure(self, entry: Entry, generation: Generation) -> None:
        if generation.pool.name != entry.pool:
            return  # Its company was that of another pool.
        timings, now = generation.timings, self.clock()
        slots = generation.pool.slots_of(generation.spec)
        took_s = timings.total_s - timings.held_s
        each_s = slot_time_s(took_s, entry.ahead, entry.items, slots)
        sample = ServiceSample(entry.model, entry.pool, entry.items, each_s * entry.items)
        try:
            await self.registry.record_service(sample, now)
            others = (entry.ahead + await self.in_flight.count(entry.model, entry.pool)) / 2
        except Unavailable as error:
            logger.warning("service time not recorded: %s", error.message)
        else:
            self.pacemakers[entry.model, entry.pool].ended(now, others + entry.items, took_s)


def _retry_after_s(request: DirectRequest, cold: ColdStart | None) -> int:
    """What a caller is told whose time is up before a worker is."""
    left_s = 0.0 if cold is None else cold.wait_s - request.timeout_s
    return min(MAX_RETRY_AFTER_S, max(RETRY_AFTER_S, math.ceil(left_s)))
