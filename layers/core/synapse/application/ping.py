"""Keep workers warm and know how they are: a real, tiny inference for each (model, pool)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from synapse.domain.errors import EngineError
from synapse.domain.inference import ModelInput
from synapse.domain.job import JobId, Priority
from synapse.domain.model import ModelSpec, ServiceSample, Task, WorkerHealth
from synapse.domain.pool import Pool
from synapse.ports import Clock, InferenceEngine, InferenceRequest, JobQueue, Registry, Telemetry


@dataclass(frozen=True, slots=True)
class Pinger:
    """Tries every warm worker and records what it saw."""

    registry: Registry
    engine: InferenceEngine
    queue: JobQueue
    telemetry: Telemetry
    clock: Clock
    timeout_s: float = 20.0

    async def ping(self) -> Sequence[WorkerHealth]:
        """Ping all, side by side; a worker that fails is reported, not raised."""
        pairs = [
            (spec, pool)
            for spec in await self.registry.models()
            for pool in await self.registry.pools(spec.name)
        ]
        seen = await asyncio.gather(*(self._ping(spec, pool) for spec, pool in pairs))
        for health in seen:
            await self.registry.record_health(health)
            self.telemetry.pinged(health)
        await self._depth(tuple({spec.name: spec for spec, _ in pairs}.values()))
        return seen

    async def _ping(self, spec: ModelSpec, pool: Pool) -> WorkerHealth:
        request = InferenceRequest(
            id=JobId(f"ping-{spec.name}-{pool.name}"),
            timeout_s=self.timeout_s,
            input=_smallest_input(spec),
        )
        started = time.perf_counter()
        [outcome] = [o async for _, o in self.engine.infer(spec, pool, [request])]
        elapsed_s = time.perf_counter() - started
        healthy = not isinstance(outcome, EngineError)
        now = self.clock()
        if healthy and not (await self.registry.service_rate(spec.name, now, pool.name)).items:
            # The first thing known of a model's speed there, until real work has been measured.
            sample = ServiceSample(spec.name, pool.name, 1, elapsed_s)
            await self.registry.record_service(sample, now)
        detail = outcome.message if isinstance(outcome, EngineError) else ""
        return WorkerHealth(spec.name, pool.name, healthy, elapsed_s * 1000, self.clock(), detail)

    async def _depth(self, specs: Sequence[ModelSpec]) -> None:
        depth = dict.fromkeys(Priority, 0)
        for spec in specs:
            for priority, waiting in (await self.queue.depth(spec.name)).items():
                depth[priority] = max(depth[priority], waiting)
        self.telemetry.queue_depth(depth)


def _smallest_input(spec: ModelSpec) -> ModelInput:
    if spec.task is Task.EMBED:
        return ModelInput(inputs=("ping",))
    return ModelInput("ping", parameters={"max_tokens": 1})
