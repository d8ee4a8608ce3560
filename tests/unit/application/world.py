"""All the use cases over working fakes, wired as the entry points wire them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from synapse.adapters.local.idle_meter import LocalIdleMeter
from synapse.adapters.local.slots import SlotLedger
from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.application.accounting import Accounting
from synapse.application.batcher import Batcher
from synapse.application.direct import DirectLane
from synapse.application.dispatch import Dispatcher
from synapse.application.fleet import Fleet
from synapse.application.gathering import Gathering
from synapse.application.give_back import GiveBack
from synapse.application.intake import SubmitJob
from synapse.application.ping import Pinger
from synapse.application.response_cache import ResponseCache
from synapse.application.results import Results
from synapse.application.roster import Roster
from synapse.application.run_batch import BatchRunner
from synapse.application.seats import Seats
from synapse.application.submit import Submitter
from synapse.application.sweep import Sweeper
from synapse.application.waiting import WaitingPlaces
from synapse.domain.batching import JobMessage
from synapse.domain.inference import ModelInput
from synapse.domain.job import Job, JobId, JobState
from synapse.domain.model import Task
from synapse.domain.retry import RetryPolicy
from tests.factories import a_chat_model, a_model, a_pool, counted_ids
from tests.fake_profiles import MemoryProfileStore
from tests.fake_usage import MemoryUsageStore
from tests.fake_webhooks import MemoryDeliveryStore
from tests.fakes import (
    FakeClock,
    MemoryBlobStore,
    MemoryJobQueue,
    MemoryJobStore,
    MemoryRegistry,
    RecordingBatchStarter,
    RecordingTelemetry,
    ScriptedEngine,
)

CHAT = "smollm2-135m-instruct"
EMBEDDER = "all-minilm-l6-v2"


@dataclass
class World:
    """A deployment in memory. Replace a port before the first use case is taken from it."""

    clock: FakeClock = field(default_factory=FakeClock)
    queue: Any = field(default_factory=MemoryJobQueue)
    blobs: Any = field(default_factory=MemoryBlobStore)
    engine: Any = field(default_factory=ScriptedEngine)
    telemetry: RecordingTelemetry = field(default_factory=RecordingTelemetry)
    starter: Any = field(default_factory=RecordingBatchStarter)
    store: Any = None
    registry: Any = None
    slots: Any = None
    metering: Any = None
    result_link: Any = None
    slept_s: list[float] = field(default_factory=list)
    gathers: bool = False
    gathered: list[JobMessage] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.usage = MemoryUsageStore()
        self.deliveries = MemoryDeliveryStore()
        self.store = self.store or MemoryJobStore(self.clock, usage=self.usage)
        embedder = a_model(EMBEDDER, task=Task.EMBED, max_output_tokens=0, dimensions=2)
        models = [a_model("echo"), a_chat_model(CHAT), embedder]
        self.registry = self.registry or MemoryRegistry(models, [a_pool("gpu"), a_pool("cpu")])
        self.new_id = counted_ids("id-")
        self.workers = LocalWorkerRegistry()
        self.slots = self.slots or SlotLedger(self.clock)
        roster = Roster(self.workers, self.clock, fresh_s=0.0)
        self.accounting = Accounting(roster, LocalIdleMeter(self.clock), self.usage, self.clock)
        self.runner = BatchRunner(
            self.store,
            self.blobs,
            self.registry,
            self.engine,
            self.telemetry,
            self.clock,
            accounting=self.accounting,
        )

    @cached_property
    def fleet(self) -> Fleet:
        profiles = MemoryProfileStore()
        return Fleet.over(
            self.engine, self.registry, self.workers, profiles, self.slots, self.clock
        )

    @cached_property
    def seats(self) -> Seats:
        return Seats(self.registry, self.slots, self.fleet.windows, self.clock)

    @property
    def submitter(self) -> Submitter:
        return Submitter(
            self.store,
            self.queue,
            self.blobs,
            self.registry,
            self.telemetry,
            self.clock,
            self.new_id,
            metering=self.metering,
        )

    @property
    def direct(self) -> DirectLane:
        async def sleep(seconds: float) -> None:
            self.slept_s.append(seconds)
            await asyncio.sleep(0)

        return DirectLane(
            self.registry,
            self.fleet,
            self.seats,
            self.telemetry,
            self.clock,
            accounting=self.accounting,
            metering=self.metering,
            sleep=sleep,
            uniform=lambda: 0.5,
        )

    @property
    def cache(self) -> ResponseCache:
        return ResponseCache(self.blobs, self.registry, self.clock)

    @property
    def results(self) -> Results:
        return Results(self.store, self.blobs, self.telemetry, self.clock, link=self.result_link)

    @property
    def dispatcher(self) -> Dispatcher:
        return Dispatcher(
            self.store,
            self.registry,
            self.fleet.routing.at_once,
            self.starter,
            self.telemetry,
            self.clock,
            self.new_id,
            Gathering(self._gather, self.places) if self.gathers else None,
        )

    @property
    def places(self) -> WaitingPlaces:
        return WaitingPlaces(self.fleet.windows, self.slots, self.registry, self.clock)

    async def _gather(self, messages: Sequence[JobMessage], delay_s: float) -> None:
        self.gathered.extend(messages)
        self.delays_s.append(delay_s)

    @property
    def give_back(self) -> GiveBack:
        return GiveBack(self.store, self.queue, self.telemetry, self.clock)

    @property
    def sweeper(self) -> Sweeper:
        return Sweeper(self.store, self.queue, self.telemetry, self.clock)

    @property
    def pinger(self) -> Pinger:
        return Pinger(
            self.registry, self.workers, self.engine, self.queue, self.telemetry, self.clock
        )

    @property
    def batcher(self) -> Batcher:
        async def sleep(seconds: float) -> None:
            self.slept_s.append(seconds)
            self.clock.advance(seconds)

        return Batcher(self.runner, self.give_back, RetryPolicy(max_attempts=3), sleep, lambda: 0.5)

    async def submit(self, prompt: str = "hello", **changes: Any) -> Job:
        """Submit a job to the echo model (or as `changes` say)."""
        fields: dict[str, Any] = {"model": "echo", "input": ModelInput(prompt=prompt), **changes}
        return (await self.submitter.submit(SubmitJob(**fields))).job

    async def work(self) -> None:
        """Dispatch all that is queued and run it through the batcher."""
        await self.dispatcher.dispatch(self.queue.take())
        orders, self.starter.orders = self.starter.orders, []
        for order in orders:
            await self.batcher.run(order)

    async def job(self, job_id: JobId) -> Job:
        """The job as recorded."""
        job: Job | None = await self.store.get(job_id)
        assert job is not None
        return job

    def states(self) -> Mapping[JobId, JobState]:
        """The state of every job."""
        return {job.id: job.state for job in self.store.jobs.values()}
