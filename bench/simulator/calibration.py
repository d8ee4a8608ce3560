"""What the simulator has to know of this machine, measured apart from what it is to predict.

Nobody else asks meanwhile: an engine is called directly, one item at a time; then the server, one
caller at a time, which tells what lies between the two; then jobs alone, which tells what a job
takes of the server's one thread, and how long items take where all slots are full. Of the phases
that are predicted only "bronze alone" is among these, and so no true prediction.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import aiohttp

from bench.processor import first_thread_s
from bench.simulator.facts import Sampled
from bench.simulator.one_machine import (
    ALONE_S,
    JOBS_S,
    JOBS_SETTLE_S,
    MODEL,
    PAUSE_S,
    Figures,
)
from bench.tiers import SERVICE_TIERS, Load
from synapse.adapters.triton.engine import TritonEngine
from synapse.domain.inference import Completion, ModelInput
from synapse.domain.job import JobId
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest

ASKED = "fast"
"""The only pool that keeps gold's promise: who asks for gold alone is answered there."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """All that was measured: seconds of items, by pool, of callers, and of the thread for a job.

    `thread_s` is half of that: a job that comes is taken to cost as much as one that is done.
    """

    engine_s: Mapping[str, Sequence[float]]
    full_s: Mapping[str, Sequence[float]]
    caller_s: Sequence[float]
    thread_s: float

    @staticmethod
    async def measured(load: Load, pid: int, seed: int) -> Calibration:
        """Measure each pool, and what a job takes of the server's thread."""
        pools = await _pools(load.session)
        engine_s = {pool.name: await _engine_alone(pool) for pool in pools}
        caller_s = await _caller_alone(load)
        thread_s, full_s = await _jobs_alone(load, pid, seed)
        return Calibration(engine_s, full_s, caller_s, thread_s)

    def figures(self) -> Figures:
        """For the simulator.

        What lies around a call is the difference of the two at each quantile: who is slow has, by
        its score, a slow engine and a slow way, so that both together are as measured.
        """
        work = {pool: Sampled.of(taken_s) for pool, taken_s in self.engine_s.items()}
        full = {pool: Sampled.of(taken_s) for pool, taken_s in self.full_s.items()}
        return Figures(work, full, _around(self.caller_s, work[ASKED]), self.thread_s)


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


async def _caller_alone(load: Load) -> list[float]:
    """Seconds of each request, one after the other."""
    body = {**load.scenario.request, "service_tier": SERVICE_TIERS["gold"]}
    taken_s: list[float] = []
    until = time.perf_counter() + ALONE_S
    while (began := time.perf_counter()) < until:
        async with load.session.post("/v1/completions", json=body) as answer:
            answer.raise_for_status()
            await answer.read()
        taken_s.append(time.perf_counter() - began)
        await asyncio.sleep(PAUSE_S)
    return taken_s[1:]


async def _jobs_alone(load: Load, pid: int, seed: int) -> tuple[float, dict[str, list[float]]]:
    """What a job takes of the server's thread when it comes, or is done; each item's seconds."""
    before = await load.bronze_done()
    async with load.stream(seed) as sent:
        await asyncio.sleep(JOBS_SETTLE_S)
        came, first, spent_s = len(sent), await load.bronze_done() - before, first_thread_s(pid)
        await asyncio.sleep(JOBS_S)
        last, spent_s = await load.bronze_done() - before, first_thread_s(pid) - spent_s
        came = len(sent) - came
        # They went about in the order in which they were sent.
        done = sent[first:last]
    return spent_s / (came + last - first), await _inference_s(load, done)


async def _inference_s(load: Load, job_ids: Sequence[str]) -> dict[str, list[float]]:
    """What those of the jobs took that are done, by pool."""
    found: dict[str, list[float]] = {pool.name: [] for pool in load.scenario.shapes}
    for job_id in job_ids:
        async with load.session.get(f"/results/{job_id}") as answer:
            job = await answer.json()
        if job["status"] == "COMPLETED":
            receipt = job["receipt"]
            found[receipt["pool"]].append(receipt["inference_ms"] / 1000)
    return found
