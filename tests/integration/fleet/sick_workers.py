"""Workers over real gRPC that can be killed, hung, slowed down and made to answer errors."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc

from synapse.adapters.local.slots import SlotLedger
from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.adapters.triton.connection import ConnectionSettings
from synapse.adapters.triton.engine import TritonEngine
from synapse.application.attempts import Attempts
from synapse.application.batcher import Batcher
from synapse.application.fleet import Fleet
from synapse.application.generation import Admitted, Generation
from synapse.application.give_back import GiveBack
from synapse.application.patience import Patience
from synapse.application.ping import Pinger
from synapse.application.routing import need_of
from synapse.application.run_batch import BatchRunner
from synapse.application.vitals import Vitals
from synapse.domain.errors import SynapseError
from synapse.domain.inference import ModelInput
from synapse.domain.job import Job, JobId, Payload, SlaTier
from synapse.domain.pool import Pool
from synapse.domain.retry import RetryPolicy
from synapse.domain.worker import CacheLevel, Worker, WorkerModel, WorkerState
from synapse_server.loop_delay import LoopDelay
from tests.factories import a_chat_model, a_job, an_order
from tests.fake_profiles import MemoryProfileStore
from tests.fakes import (
    MemoryBlobStore,
    MemoryJobQueue,
    MemoryJobStore,
    MemoryRegistry,
    RecordingTelemetry,
)
from tests.patience import PATIENCE_S
from tests.unit.triton.fake_triton import GENERATOR, FakeTriton, ModelError

MODEL = a_chat_model(GENERATOR)
POOL = Pool("cpu", "cpu", min_workers=2, max_workers=2)
USUAL_S = 0.01
PATIENCE = Patience(min_slow_s=0.03, min_late_s=3.0)
FEW_TOKENS = Payload(inline='{"prompt":"one two three","parameters":{"max_tokens":8}}')
"""A job is waited for as long as all that it may write takes: with 1,024 tokens, for minutes."""


@dataclass
class SickTriton(FakeTriton):
    """Takes `USUAL_S` for an answer, unless something is the matter with it.

    Faults: `hung`, `slow`, `errors`, and `failing`: every second answer is slow, the others never
    come.
    """

    fault: str = ""
    asked: int = 0

    async def _answers(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.asked += 1
        if self.fault == "hung" or (self.fault == "failing" and self.asked % 2):
            await asyncio.Event().wait()
        if self.fault == "errors":
            raise ModelError("engine failed: out of order", grpc.StatusCode.UNAVAILABLE)
        is_slow = self.fault in ("slow", "failing")
        await asyncio.sleep(10 * USUAL_S if is_slow else USUAL_S)
        async for answer in super()._answers(request, context):
            yield answer

    async def kill(self) -> None:
        await self._server.stop(None)

    async def start(self) -> None:
        await self.__aenter__()


@dataclass
class Ward:
    """Two workers of a pool, callers and jobs that keep coming, and a pinger."""

    tritons: dict[str, SickTriton]
    fleet: Fleet
    engine: TritonEngine
    registry: MemoryRegistry
    workers: LocalWorkerRegistry
    failures: list[SynapseError] = field(default_factory=list)
    answered_by: Counter[str] = field(default_factory=Counter)
    jobs: list[Job] = field(default_factory=list)
    store: MemoryJobStore = field(default_factory=lambda: MemoryJobStore(time.time))
    queue: MemoryJobQueue = field(default_factory=MemoryJobQueue)

    async def beat(self) -> None:
        """Both are said to be up: their agents have not noticed anything."""
        now = time.time()
        for name, triton in self.tritons.items():
            resident = WorkerModel(MODEL.name, "1", CacheLevel.GPU_RESIDENT)
            await self.workers.beat(
                Worker(
                    name,
                    POOL.name,
                    "cpu",
                    WorkerState.READY,
                    triton.address,
                    (resident,),
                    now,
                    now,
                    now + 3600.0,
                )
            )

    async def ask(self, prompt: str = "one two three") -> str:
        """A caller on the line; which worker answered."""
        now = asyncio.get_running_loop().time()
        need = need_of(MODEL, ModelInput(prompt), SlaTier.SILVER)
        decision = await self.fleet.routing.decide(MODEL, need)
        attempts = Attempts(
            decision.pools,
            now + PATIENCE_S,
            RetryPolicy(base_s=0.05, max_s=0.2),
            asyncio.sleep,
            random.random,
            lambda pool, avoid: self.fleet.placement.place(MODEL, pool, prompt, avoid),
        )
        tier = SlaTier.SILVER
        value = ModelInput(prompt)
        admitted = Admitted("r", MODEL, value, tier, now + PATIENCE_S, attempts, decision)

        async def left(generation: Generation) -> None:
            """Nothing is counted here."""

        async with Generation(admitted, self.fleet.engine, left) as generation:
            text = "".join([delta.delta.text async for delta in generation.deltas()])
        assert text == prompt + " "
        return generation.pool.worker

    async def keep_asking(self, number: int) -> None:
        """A caller who asks again and again, each time something else."""
        while True:
            try:
                self.answered_by[await self.ask(f"{number} {random.random()}")] += 1
            except SynapseError as error:
                self.failures.append(error)
            await asyncio.sleep(0.005)

    async def keep_pinging(self) -> None:
        telemetry = RecordingTelemetry()
        pinger = Pinger(
            self.registry,
            self.workers,
            self.fleet.engine,
            self.queue,
            telemetry,
            time.time,
            timeout_s=3.0,
        )
        while True:
            await pinger.ping()
            await asyncio.sleep(0.1)

    async def run_jobs(self, count: int) -> list[Job]:
        """Submit jobs as one batch, and give the batcher what comes back until all have ended."""
        runner = BatchRunner(
            self.store,
            MemoryBlobStore(),
            self.registry,
            self.fleet.engine,
            RecordingTelemetry(),
            time.time,
            place=self.fleet.placement.place,
        )
        give_back = GiveBack(self.store, self.queue, RecordingTelemetry(), time.time)
        retry = RetryPolicy(max_attempts=4, base_s=0.05, max_s=0.2)
        batcher = Batcher(runner, give_back, retry, asyncio.sleep, random.random)
        made_at = time.time()
        jobs = [
            a_job(model=MODEL.name, created_at=made_at, payload=FEW_TOKENS) for _ in range(count)
        ]
        await self.store.create_many(jobs)
        waiting: list[list[JobId]] = [[job.id for job in jobs]]
        while waiting:
            orders = [an_order(*ids, model=MODEL.name, pools=(POOL,)) for ids in waiting]
            await asyncio.gather(*(batcher.run(order) for order in orders))
            # Those that were on a worker when it was lost run alone from then on.
            waiting = [[message.job_id] for message in self.queue.take()]
        return [self.store.jobs[job.id] for job in jobs]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.01)

    def is_open(self, worker: str) -> bool:
        return not self.fleet.vitals.breaker(MODEL.name, POOL.name, worker).is_closed

    async def until_only(self, worker: str) -> None:
        """Return when fifty answers in a row came from that worker."""
        async with asyncio.timeout(PATIENCE_S):
            seen, since = 0, Counter(self.answered_by)
            while seen < 50:
                await asyncio.sleep(0.01)
                new = self.answered_by - since
                seen = new[worker]
                if set(new) - {worker}:
                    seen, since = 0, Counter(self.answered_by)


@asynccontextmanager
async def a_ward(sockets: Path) -> AsyncIterator[Ward]:
    """Two workers that are well, known for how long they take."""
    async with AsyncExitStack() as stack:
        tritons = {}
        for name in ("w-1", "w-2"):
            triton = SickTriton(f"unix:{sockets}/{name}")
            tritons[name] = await stack.enter_async_context(triton)
        engine = await stack.enter_async_context(
            TritonEngine(ConnectionSettings(connect_timeout_s=3.0))
        )
        registry, workers = MemoryRegistry([MODEL], [POOL]), LocalWorkerRegistry()
        fleet = Fleet.over(
            engine,
            registry,
            workers,
            MemoryProfileStore(),
            SlotLedger(time.time),
            time.time,
            fresh_s=0.05,
            vitals=Vitals(time.monotonic, LoopDelay()),
            patience=PATIENCE,
        )
        ward = Ward(tritons, fleet, engine, registry, workers)
        await ward.beat()
        for number in range(20):
            await ward.ask(f"{number} two three")
        yield ward


@asynccontextmanager
async def under_load(ward: Ward, callers: int = 6) -> AsyncIterator[None]:
    """Callers keep coming and the pinger goes round, until the end of the block."""
    tasks = [asyncio.create_task(ward.keep_asking(number)) for number in range(callers)]
    tasks.append(asyncio.create_task(ward.keep_pinging()))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(each) for each in ended} == {asyncio.CancelledError}
