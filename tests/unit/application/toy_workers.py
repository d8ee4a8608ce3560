"""Workers that can be told to misbehave, and the fleet's parts over them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from synapse.adapters.local.slots import SlotLedger
from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.adapters.triton.samples import merged
from synapse.application.fleet import Fleet
from synapse.application.patience import Patience, Size
from synapse.application.vitals import Vitals
from synapse.domain.breaker import Breaker
from synapse.domain.errors import (
    EngineError,
    EngineLost,
    EngineTimeout,
    EngineUnavailable,
    InvalidInput,
)
from synapse.domain.inference import Completion, Delta, ModelInput, Result
from synapse.domain.job import JobId, SlaTier, Usage
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.worker import CacheLevel, Worker, WorkerModel, WorkerState
from synapse.ports import InferenceRequest, StreamingEngine
from tests.factories import NOW, a_chat_model, a_model
from tests.fake_profiles import MemoryProfileStore
from tests.fakes import FakeClock, MemoryRegistry

ECHO = a_model("echo")
LLM = a_chat_model("llm")


class ToyDeafness(FakeClock):
    """Tells what it was told; `waiting` is how many are said to wait."""

    waiting = 0

    def begin(self) -> None:
        self.waiting += 1

    def end(self) -> None:
        self.waiting -= 1


@dataclass
class ToyWorkers(StreamingEngine):
    """An engine for many workers, by id: each answers after its `delay_s`, or as `mode` says.

    Time passes on `tick` alone: nothing sleeps. Of each answer's time this process does not
    listen for `deaf_s`, as `deaf` tells. Modes: `refusing` (this very input), `doubtful`
    (likewise, but names nothing of it), `late` (the time was up), `away` (cannot be reached),
    `lost` (goes down with the call), `broken` (answers what cannot be read), `hung` (never
    answers), `held` (answers once `release` is set), `stuck` (hangs after the first part).
    """

    mode: dict[str, str] = field(default_factory=dict)
    delay_s: dict[str, float] = field(default_factory=dict)
    deaf_s: float = 0.0
    release: asyncio.Event = field(default_factory=asyncio.Event)
    tick: FakeClock = field(default_factory=lambda: FakeClock(0.0))
    deaf: ToyDeafness = field(default_factory=lambda: ToyDeafness(0.0))
    called: list[str] = field(default_factory=list)
    running: Counter[str] = field(default_factory=Counter)

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Result | EngineError], None]:
        self.called.append(pool.worker)
        for request in requests:
            try:
                await self._work(pool)
            except EngineError as error:
                yield request.id, error
            else:
                value = request.input
                written = value.parameters.get("max_tokens", 1)
                assert isinstance(written, int)
                one = Completion(str(value.prompt), "stop", Usage(1, written))
                yield request.id, merged([one] * value.samples)

    async def stream(
        self, model: ModelSpec, pool: Pool, request: InferenceRequest
    ) -> AsyncGenerator[Delta, None]:
        self.called.append(pool.worker)
        await self._work(pool)
        yield Delta("a", 1, 1)
        if self.mode.get(pool.worker) == "stuck":
            await asyncio.Event().wait()
        yield Delta("", 1, 0, "stop")

    async def _work(self, pool: Pool) -> None:
        mode = self.mode.get(pool.worker, "")
        self.running[pool.worker] += 1
        try:
            if mode == "hung":
                await asyncio.Event().wait()
            if mode == "held":
                await self.release.wait()
            await asyncio.sleep(0)
            self.tick.advance(self.delay_s.get(pool.worker, 0.0))
            self.deaf.advance(self.deaf_s)
            # It may have gone down meanwhile.
            mode = self.mode.get(pool.worker, "")
            if mode == "refusing":
                raise InvalidInput("it is too hot", param="temperature")
            if mode == "doubtful":
                raise InvalidInput("CUDA error: an illegal memory access was encountered")
            if mode == "late":
                raise EngineTimeout("the time allowed was over")
            if mode == "away":
                raise EngineUnavailable("it cannot be reached")
            if mode == "lost":
                raise EngineLost("it went down")
            if mode == "broken":
                raise EngineError("it answered what cannot be read")
        finally:
            self.running[pool.worker] -= 1


@dataclass
class ToyFleetWorld:
    """The fleet over toy workers; `clock` is that of leases, `tick` that of breakers.

    One item is asked for by `way`: "infer" as of jobs, "answer" as of callers on the line.
    """

    way: ClassVar[str] = "infer"
    pools: Sequence[Pool] = (Pool("cpu", "cpu", max_workers=4),)
    clock: FakeClock = field(default_factory=FakeClock)
    engine: ToyWorkers = field(default_factory=ToyWorkers)
    patience: Patience = field(default_factory=Patience)
    registry: Any = None

    def __post_init__(self) -> None:
        self.tick = self.engine.tick
        self.registry = self.registry or MemoryRegistry([ECHO, LLM], self.pools)
        self.workers = LocalWorkerRegistry()
        self.profiles = MemoryProfileStore()
        self.slots = SlotLedger(self.clock)
        self.fleet = Fleet.over(
            self.engine,
            self.registry,
            self.workers,
            self.profiles,
            self.slots,
            self.clock,
            fresh_s=0.0,
            vitals=Vitals(self.tick, self.engine.deaf),
            patience=self.patience,
        )

    async def up(self, *ids: str, pool: str = "cpu", **changes: Any) -> None:
        """These workers of a pool beat: they are up and have all models, unless told otherwise."""
        for worker_id in ids:
            worker = a_toy_worker(worker_id, pool, self.clock.now)
            await self.workers.beat(replace(worker, **changes))

    def at(self, worker: str) -> Pool:
        """The first pool, placed at a worker."""
        return replace(self.pools[0], endpoint="127.0.0.1:1", worker=worker)

    def breaker(self, worker: str, spec: ModelSpec = ECHO) -> Breaker:
        return self.fleet.vitals.breaker(spec.name, self.pools[0].name, worker)

    async def ask(
        self,
        worker: str,
        spec: ModelSpec = ECHO,
        prompt: str = "hello",
        samples: int = 1,
        **parameters: object,
    ) -> Result | EngineError:
        """Send an item to a worker, or some samples of one, by way of the fleet's engine."""
        value = ModelInput(prompt, parameters=parameters, samples=samples)
        request = a_toy_request(input=value)
        if self.way == "answer":
            try:
                return await self.fleet.engine.answer(spec, self.at(worker), request)
            except EngineError as error:
                return error
        outcomes = self.fleet.engine.infer(spec, self.at(worker), [request])
        [(_, outcome)] = [each async for each in outcomes]
        return outcome

    async def read(self, worker: str, tier: SlaTier = SlaTier.SILVER) -> str:
        """Read a generation of a worker as a stream."""
        deltas = self.fleet.engine.stream(LLM, self.at(worker), a_toy_request(tier=tier))
        return "".join([delta.text async for delta in deltas])

    @asynccontextmanager
    async def busy(self, worker: str, items: int) -> AsyncIterator[None]:
        """A call of so many items of bronze is under way meanwhile."""
        request = a_toy_request(tier=SlaTier.BRONZE)
        size = Size.of(LLM, [request] * items)
        call = await self.fleet.engine.calls.begin(LLM, self.at(worker), size, streams=False)
        try:
            yield
        finally:
            call.end()


def a_toy_worker(worker_id: str, pool: str = "cpu", now: float = NOW) -> Worker:
    resident = CacheLevel.GPU_RESIDENT
    models = tuple(WorkerModel(spec.name, "1", resident) for spec in (ECHO, LLM))
    return Worker(
        worker_id,
        pool,
        "cpu",
        WorkerState.READY,
        f"127.0.0.1:{9000 + len(worker_id)}",
        models,
        started_at=now,
        beat_at=now,
        lease_until=now + 3600.0,
    )


def a_toy_request(**changes: Any) -> InferenceRequest:
    fields: dict[str, Any] = {"id": JobId("r-1"), "timeout_s": 60.0, "input": ModelInput("hello")}
    return InferenceRequest(**{**fields, **changes})
