"""Keep workers warm and know how they are: a real, tiny inference for each model on each worker.

Only workers that are up are asked. A ping is no demand: it starts nothing, counts for no idle
time, and where it is the first thing that is measured of a model it is put before all real work.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from synapse.domain.errors import EngineError, Unavailable
from synapse.domain.inference import ModelInput
from synapse.domain.job import JobId, Priority, SlaTier
from synapse.domain.model import ModelSpec, ServiceSample, Task, WorkerHealth
from synapse.domain.pool import Pool
from synapse.domain.warm import warm_workers
from synapse.domain.worker import Worker
from synapse.ports import (
    Clock,
    Environments,
    InferenceEngine,
    InferenceRequest,
    JobQueue,
    Registry,
    Telemetry,
    WorkerRegistry,
)

logger = logging.getLogger(__name__)

MAX_AT_ONCE = 16
"""Pings under way at a time, however many workers there are."""

PING_TIMEOUT_S = 20.0
KEEP_WARM_S = 10.0
"""A runner that takes longer is starting, and goes on without being waited for."""

BEFORE_ALL_WORK = 0.0
"""When a ping's time is recorded for: no window of the latest demand reaches so far back."""


@dataclass(frozen=True, slots=True)
class Pinger:
    """Tries every model on every worker that has it, and records what it saw.

    `engine` takes pools with the worker filled in; `environments` keeps runners warm, where
    pools have runners that grow cold. Workers that are inside their runner come with the calls:
    such a pool is tried only while a warm window asks for it.
    """

    registry: Registry
    workers: WorkerRegistry
    engine: InferenceEngine
    queue: JobQueue
    telemetry: Telemetry
    clock: Clock
    environments: Environments | None = None
    timeout_s: float = PING_TIMEOUT_S
    max_at_once: int = MAX_AT_ONCE

    async def ping(self) -> Sequence[WorkerHealth]:
        """Ping all; how each (model, pool) with a worker up is. Failures are reported, not raised.

        Raises:
            Unavailable: the workers could not be read, or what was seen could not be recorded.
        """
        specs = await self.registry.models()
        pools = {spec.name: await self.registry.pools(spec.name) for spec in specs}
        alive = await self.workers.workers(self.clock())
        at_once = asyncio.Semaphore(self.max_at_once)
        pairs = [(spec, pool) for spec in specs for pool in pools[spec.name]]
        seen = await asyncio.gather(
            *(self._ping_pool(spec, pool, alive, at_once) for spec, pool in pairs)
        )
        known = [health for health in seen if health is not None]
        await self._tell_changes([pool for _, pool in pairs if pool.is_fixed], known)
        for health in known:
            await self.registry.record_health(health)
        await self._keep_warm({pool.name: pool for _, pool in pairs}.values())
        await self._depth(specs)
        return known

    async def _tell_changes(self, fixed: Sequence[Pool], seen: Sequence[WorkerHealth]) -> None:
        """Log which engines that nobody here starts, and so nobody else tells of, went or came."""
        if not fixed:
            return
        endpoints = {pool.name: pool.endpoint for pool in fixed}
        was_well = {
            (before.model, before.pool): before.healthy for before in await self.registry.health()
        }
        for health in (each for each in seen if each.pool in endpoints):
            was, at = was_well.get((health.model, health.pool), True), endpoints[health.pool]
            if was and not health.healthy:
                text = "pool %s: the engine at %s does not answer for %s: %s"
                logger.warning(text, health.pool, at, health.model, health.detail)
            elif health.healthy and not was:
                logger.info("pool %s: the engine at %s answers again", health.pool, at)

    async def _ping_pool(
        self, spec: ModelSpec, pool: Pool, alive: Sequence[Worker], at_once: asyncio.Semaphore
    ) -> WorkerHealth | None:
        """How the model is in the pool; None where no worker has it."""
        if pool.runs_in_runner and not warm_workers(pool, self.clock()):
            # Nobody can tell whether a worker is up, and to ask would start one.
            return None
        if pool.is_fixed:
            placed = [pool]
        else:
            placed = [
                replace(pool, endpoint=worker.endpoint, worker=worker.id)
                for worker in alive
                if worker.pool == pool.name and worker.has(spec.name)
            ]
        if not placed:
            return None
        seen = await asyncio.gather(*(self._ping(spec, each, at_once) for each in placed))
        for health in seen:
            self.telemetry.pinged(health)
        return _together(seen)

    async def _ping(
        self, spec: ModelSpec, placed: Pool, at_once: asyncio.Semaphore
    ) -> WorkerHealth:
        request = InferenceRequest(
            id=JobId(f"ping-{spec.name}-{placed.worker or placed.name}"),
            timeout_s=self.timeout_s,
            input=_smallest_input(spec),
            # Of what better tiers ask it says nothing: room for bronze is made for their prompts.
            tier=SlaTier.BRONZE,
        )
        async with at_once:
            started = time.perf_counter()
            [outcome] = [o async for _, o in self.engine.infer(spec, placed, [request])]
            elapsed_s = time.perf_counter() - started
        healthy = not isinstance(outcome, EngineError)
        if healthy:
            await self._measure(spec, placed, elapsed_s)
        detail = outcome.message if isinstance(outcome, EngineError) else ""
        return WorkerHealth(
            spec.name,
            placed.name,
            healthy,
            elapsed_s * 1000,
            self.clock(),
            detail,
            placed.worker,
        )

    async def _measure(self, spec: ModelSpec, placed: Pool, elapsed_s: float) -> None:
        """The first thing known of a model's speed there, until real work has been measured."""
        known = await self.registry.service_rate(spec.name, self.clock(), placed.name)
        if not known.items:
            sample = ServiceSample(spec.name, placed.name, 1, elapsed_s)
            await self.registry.record_service(sample, BEFORE_ALL_WORK)

    async def _keep_warm(self, pools: Iterable[Pool]) -> None:
        if self.environments is None:
            return
        wanted = [(pool, warm_workers(pool, self.clock())) for pool in pools if pool.runner]
        await asyncio.gather(
            *(self._keep_runners(self.environments, pool, n) for pool, n in wanted if n)
        )

    async def _keep_runners(self, environments: Environments, pool: Pool, wanted: int) -> None:
        try:
            async with asyncio.timeout(KEEP_WARM_S):
                await environments.keep_warm(pool, wanted)
        except TimeoutError:
            logger.warning("runners of pool %s do not answer yet", pool.name)
        except Unavailable as error:
            logger.warning("runners not kept warm: %s", error.message)

    async def _depth(self, specs: Sequence[ModelSpec]) -> None:
        depth = dict.fromkeys(Priority, 0)
        for spec in specs:
            for priority, waiting in (await self.queue.depth(spec.name)).items():
                depth[priority] = max(depth[priority], waiting)
        self.telemetry.queue_depth(depth)


def _together(seen: Sequence[WorkerHealth]) -> WorkerHealth:
    """How a pool is whose workers were seen so: well if one of them is."""
    well = [health for health in seen if health.healthy]
    ill = [health for health in seen if not health.healthy]
    detail = ill[0].detail if ill else ""
    if ill and len(seen) > 1:
        told = "; ".join(f"{health.worker}: {health.detail}" for health in ill)
        detail = f"{len(ill)} of {len(seen)} workers did not answer: {told}"
    return replace(
        seen[0],
        healthy=bool(well),
        latency_ms=statistics.median(health.latency_ms for health in well or seen),
        checked_at=max(health.checked_at for health in seen),
        detail=detail,
        worker="",
    )


def _smallest_input(spec: ModelSpec) -> ModelInput:
    if spec.task is Task.EMBED:
        return ModelInput(inputs=("ping",))
    return ModelInput("ping", parameters={"max_tokens": 1})
