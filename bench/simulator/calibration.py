"""What the simulator has to know of this machine, measured apart from what it is to predict.

Nobody else asks meanwhile: an engine is called directly, one item at a time; then the server, one
caller at a time, which tells what lies between the two; then jobs alone, which tells what a job
takes of the server's processor. No phase that is predicted is among these.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import aiohttp

from bench.processor import processor_s
from bench.simulator.facts import Sampled
from bench.simulator.one_machine import MODEL, POOLS, Figures
from bench.tiers import SERVICE_TIERS, TWO_POOLS, Load
from synapse.adapters.triton.engine import TritonEngine
from synapse.domain.inference import Completion, ModelInput
from synapse.domain.job import JobId
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest
from synapse_worker.stubs import children

ALONE_S = 2.5
"""For so long each engine is asked alone, and then the server."""

PAUSE_S = 0.01
"""Between two items, so that each finds everything at rest, as one does that comes at random."""

JOBS_SETTLE_S = 1.0
JOBS_S = 3.0

ASKED = "fast"
"""The only pool that keeps gold's promise: who asks for gold alone is answered there."""


@dataclass(slots=True)
class Calibration:
    """All that was measured up to now; more of it may be added between the phases."""

    engine_s: dict[str, list[float]]
    caller_s: list[float]
    job_cpu_s: list[float]

    @staticmethod
    def empty() -> Calibration:
        """Nothing yet."""
        return Calibration({name: [] for name, *_ in POOLS}, [], [])

    async def add(self, load: Load, pid: int) -> None:
        """Measure each pool once more, and what a job takes of the server's thread."""
        for pool in await _pools(load.session):
            self.engine_s[pool.name] += await _engine_alone(pool)
        self.caller_s += await _caller_alone(load.session)
        self.job_cpu_s.append(await _job_cpu_s(load, pid))

    def figures(self) -> Figures:
        """For the simulator.

        What lies around a call is the difference of the two at each quantile: who is slow has, by
        its score, a slow engine and a slow way, so that both together are as measured.
        """
        work = {pool: Sampled.of(taken_s) for pool, taken_s in self.engine_s.items()}
        around = _around(self.caller_s, work[ASKED])
        return Figures(work, around, statistics.median(self.job_cpu_s))


def _around(callers_s: Sequence[float], engine: Sampled) -> Sampled:
    """What is to be added to an engine's times for those of its callers."""
    through, normal, steps = Sampled.of(callers_s), NormalDist(), len(callers_s)
    scores = [normal.inv_cdf((number + 0.5) / steps) for number in range(steps)]
    return Sampled.of([max(0.0, through.at(score) - engine.at(score)) for score in scores])


async def _pools(session: aiohttp.ClientSession) -> list[Pool]:
    """The one worker of each."""
    async with session.get("/api/admin/workers") as answer:
        answer.raise_for_status()
        workers = (await answer.json())["data"]
    return [
        Pool(worker["pool"], worker["accelerator"], endpoint=worker["endpoint"])
        for worker in workers
    ]


async def _engine_alone(pool: Pool) -> list[float]:
    """Seconds of each item, one after the other, without the server."""
    request = InferenceRequest(JobId("alone"), 30.0, ModelInput(prompt="hello"))
    taken_s: list[float] = []
    async with TritonEngine() as engine:
        until = time.perf_counter() + ALONE_S
        while (began := time.perf_counter()) < until:
            async for _, outcome in engine.infer(MODEL, pool, [request]):
                assert isinstance(outcome, Completion), outcome
            taken_s.append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE_S)
    return taken_s[1:]


async def _caller_alone(session: aiohttp.ClientSession) -> list[float]:
    """Seconds of each request, one after the other."""
    body = {**TWO_POOLS.request, "service_tier": SERVICE_TIERS["gold"]}
    taken_s: list[float] = []
    until = time.perf_counter() + ALONE_S
    while (began := time.perf_counter()) < until:
        async with session.post("/v1/completions", json=body) as answer:
            answer.raise_for_status()
            await answer.read()
        taken_s.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE_S)
    return taken_s[1:]


async def _job_cpu_s(load: Load, pid: int) -> float:
    """Processor time of the server itself for each job, without that of its engines."""
    async with load.backlog(math.ceil(TWO_POOLS.bronze_per_s * (JOBS_SETTLE_S + JOBS_S))):
        await asyncio.sleep(JOBS_SETTLE_S)
        done, spent_s = await load.bronze_done(), _server_s(pid)
        await asyncio.sleep(JOBS_S)
        done, spent_s = await load.bronze_done() - done, _server_s(pid) - spent_s
    return spent_s / done


def _server_s(pid: int) -> float:
    return processor_s(pid) - sum(processor_s(child) for child in children(pid))
