"""`python -m bench.routing`: what finding a pool and a worker costs each request, in microseconds.

Nothing is sent anywhere: the parts of one machine over an engine that answers at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass

from synapse.adapters.catalogue import load_catalogue
from synapse.adapters.local.slots import SlotLedger
from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.application.fleet import Fleet
from synapse.application.routing import need_of
from synapse.domain.estimate import ServiceRate
from synapse.domain.inference import Completion, Delta, ModelInput, Result
from synapse.domain.job import JobId, SlaTier, Usage
from synapse.domain.model import ModelSpec, ServiceSample, WorkerHealth
from synapse.domain.pool import Pool
from synapse.domain.profile import Profile
from synapse.domain.worker import CacheLevel, Worker, WorkerModel, WorkerState
from synapse.ports import InferenceRequest, StreamingEngine

ROUNDS, CALLS = 7, 1000
ANSWER = Completion("hello", "stop", Usage(1, 1))
VALUE = ModelInput("The future of AI is")


class _Engine(StreamingEngine):
    """Answers at once."""

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Result], None]:
        for request in requests:
            yield request.id, ANSWER

    async def stream(
        self, model: ModelSpec, pool: Pool, request: InferenceRequest
    ) -> AsyncGenerator[Delta, None]:
        yield Delta("hello", 1, 1, "stop")


@dataclass
class _Registry:
    """Pools that serve one model, at a steady rate."""

    spec: ModelSpec
    served_by: Sequence[Pool]

    async def models(self) -> Sequence[ModelSpec]:
        return [self.spec]

    async def model(self, name: str) -> ModelSpec | None:
        return self.spec if name == self.spec.name else None

    async def pools(self, model: str) -> Sequence[Pool]:
        return self.served_by

    async def record_service(self, sample: ServiceSample, now: float) -> None:
        return None

    async def service_rate(self, model: str, now: float, pool: str = "") -> ServiceRate:
        return ServiceRate(10, 0.01)

    async def record_health(self, health: WorkerHealth) -> None:
        return None

    async def health(self) -> Sequence[WorkerHealth]:
        return ()


class _Profiles:
    """The same profile for every pool."""

    async def profile(self, model: str, version: str, pool: str) -> Profile | None:
        return Profile(model, version, pool, "cpu", base_ms=1.0, measured_at=1.0)

    async def profiles(self) -> Sequence[Profile]:
        return ()

    async def keep(self, profile: Profile) -> None:
        return None


async def _fleet(spec: ModelSpec, pools: Sequence[Pool], workers: int) -> Fleet:
    registry, now = LocalWorkerRegistry(), time.time()
    resident = (WorkerModel(spec.name, spec.version, CacheLevel.GPU_RESIDENT),)
    for pool in pools:
        for number in range(workers):
            name, endpoint = f"{pool.name}-{number}", f"127.0.0.1:{9000 + number}"
            state = WorkerState.READY
            await registry.beat(
                Worker(name, pool.name, "cpu", state, endpoint, resident, now, now, now + 3600)
            )
    slots = SlotLedger(time.time)
    return Fleet.over(_Engine(), _Registry(spec, pools), registry, _Profiles(), slots, time.time)


async def _us(call: Callable[[], Awaitable[object]]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        started = time.perf_counter()
        for _ in range(CALLS):
            await call()
        best = min(best, time.perf_counter() - started)
    return best / CALLS * 1e6


async def _measure(pool_count: int, workers: int) -> tuple[float, float, float]:
    """Decide, place, and what the watched call costs beyond the call itself."""
    spec = next(spec for spec in load_catalogue() if spec.name == "echo")
    pools = [
        Pool(f"p{n}", "cpu", price_per_hour_usd=0.1 * (n + 1), max_workers=8)
        for n in range(pool_count)
    ]
    fleet = await _fleet(spec, pools, workers)
    placed = await fleet.placement.place(spec, pools[0])
    request = InferenceRequest(JobId("r"), 60.0, VALUE)

    async def decide() -> None:
        await fleet.routing.decide(spec, need_of(spec, VALUE, SlaTier.SILVER, 60.0))

    async def place() -> None:
        await fleet.placement.place(spec, pools[0])

    async def watched() -> None:
        async for _ in fleet.engine.infer(spec, placed, [request]):
            pass

    async def bare() -> None:
        async for _ in _Engine().infer(spec, placed, [request]):
            pass

    return await _us(decide), await _us(place), await _us(watched) - await _us(bare)


def main() -> None:
    print(f"Microseconds a request, the best of {ROUNDS} × {CALLS}")
    print("| pools × workers | choose the pool | choose the worker | watch the call |")
    print("| --- | --- | --- | --- |")
    for pools, workers in ((1, 1), (4, 8)):
        decide, place, watch = asyncio.run(_measure(pools, workers))
        print(f"| {pools} × {workers} | {decide:.0f} | {place:.0f} | {watch:.0f} |")


if __name__ == "__main__":
    main()
