"""All use cases of jobs over a deployment's adapters, and what is on its way between them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

from synapse.application.batcher import Batcher
from synapse.application.dispatch import Dispatcher
from synapse.application.gathering import Gathering
from synapse.application.give_back import GiveBack
from synapse.application.intake import SubmitJob
from synapse.application.metered_jobs import MeteredJobs
from synapse.application.metering import Metering
from synapse.application.results import JobView, Results
from synapse.application.run_batch import BatchRunner
from synapse.application.submit import Submitter
from synapse.application.sweep import Sweeper
from synapse.domain.access import ANYONE, Limits, Principal
from synapse.domain.batching import JobMessage
from synapse.domain.errors import JobNotCancellable, JobNotFound, LimitReached, Unavailable
from synapse.domain.inference import ModelInput
from synapse.domain.job import Failure, JobId, SlaTier
from synapse.domain.metering import MeterId
from synapse.domain.model import ModelSpec
from synapse.domain.retry import RetryPolicy
from synapse.domain.routing import PoolView
from synapse.ports import BatchOrder
from tests.fakes import FakeClock, RecordingTelemetry
from tests.lives.deployments import Deployment
from tests.lives.engine import RUNNER, FatedEngine
from tests.lives.rooms import Rooms
from tests.lives.trouble import Trouble

T = TypeVar("T")

KEYS = ("key-1", "key-2", "key-3")
MOST_AT_ONCE = 4
LIMITED = Principal("acme", "key1", limits=Limits(concurrent_jobs=MOST_AT_ONCE))
METER = MeterId("acme", "key1")
LARGE = "word " * 41_000
"""More than what a record holds."""


@dataclass(frozen=True)
class Wish:
    """What a caller asks for."""

    key: str | None
    timeout_s: float
    is_limited: bool
    is_large: bool

    @property
    def caller(self) -> Principal:
        """Who asks."""
        return LIMITED if self.is_limited else ANYONE


@dataclass
class System:
    """What was accepted and what is under way. Its methods pass on no fault of AWS or SQLite.

    `asked_until` is the last deadline of all that was asked for, accepted or not.
    """

    at: Deployment
    clock: FakeClock
    engine: FatedEngine
    trouble: Trouble
    telemetry: RecordingTelemetry = field(default_factory=RecordingTelemetry)
    ids: list[JobId] = field(default_factory=list)
    prompts: dict[JobId, str] = field(default_factory=dict)
    accepted: dict[JobId, Wish] = field(default_factory=dict)
    keyed: dict[str, Wish] = field(default_factory=dict)
    by_key: dict[str, JobId] = field(default_factory=dict)
    asked_until: float = 0.0
    cancelled: set[JobId] = field(default_factory=set)
    messages: list[JobMessage] = field(default_factory=list)
    orders: list[BatchOrder] = field(default_factory=list)
    ran: list[BatchOrder] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    rooms: Rooms = field(init=False)
    _batches: int = 0

    def __post_init__(self) -> None:
        at, clock, telemetry = self.at, self.clock, self.telemetry
        self.rooms = Rooms(clock)
        metering = Metering(at.meter, _no_views, clock)
        self.jobs = MeteredJobs(at.jobs, metering)
        self.submitter = Submitter(
            self.jobs,
            at.queue,
            at.blobs,
            at.registry,
            telemetry,
            clock,
            self._new_job_id,
            metering=metering,
        )
        self.dispatcher = Dispatcher(
            self.jobs,
            at.registry,
            lambda: self.rooms.decide,
            at.starter,
            telemetry,
            clock,
            self._new_batch_id,
            gathering=Gathering(self._gather, self.rooms.places()),
        )
        self.runner = BatchRunner(
            self.jobs,
            at.blobs,
            at.registry,
            self.engine,
            telemetry,
            clock,
            entrance=self.rooms.entrance(),
        )
        self._give_back = GiveBack(self.jobs, at.queue, telemetry, clock)
        self.sweeper = Sweeper(self.jobs, at.queue, telemetry, clock)
        self.results = Results(self.jobs, at.blobs, telemetry, clock)

        async def sleep(seconds: float) -> None:
            clock.advance(seconds)
            await asyncio.sleep(0)

        retry = RetryPolicy(max_attempts=2)
        self.batcher = Batcher(self.runner, self._give_back, retry, sleep, lambda: 0.5)

    async def _gather(self, messages: Sequence[JobMessage], delay_s: float) -> None:
        await self.at.queue.send(messages)

    def _new_job_id(self) -> str:
        self.ids.append(JobId(f"job-{len(self.ids) + 1}"))
        return self.ids[-1]

    def _new_batch_id(self) -> str:
        self._batches += 1
        return f"batch-{self._batches}"

    async def submit(self, wish: Wish) -> None:
        """Ask for a job; one with a key is always asked for in the same words."""
        if wish.key is not None:
            wish = self.keyed.setdefault(wish.key, wish)
        text = f"of {wish.key}" if wish.key else f"number {len(self.ids) + 1}"
        prompt = f"prompt {text} {LARGE if wish.is_large else ''}"
        before = len(self.ids)
        self.asked_until = max(self.asked_until, self.clock() + wish.timeout_s)
        try:
            accepted = await self.submitter.submit(
                SubmitJob(
                    "echo",
                    ModelInput(prompt=prompt),
                    timeout_s=wish.timeout_s,
                    caller=wish.caller,
                    idempotency_key=wish.key,
                )
            )
        except LimitReached:
            self._limit_was_reached(wish)
        except Unavailable:
            assert self.trouble.happened, "refused, and nothing had gone wrong"
        else:
            self.accepted[accepted.job.id] = wish
            if wish.key is not None:
                first = self.by_key.setdefault(wish.key, accepted.job.id)
                assert first == accepted.job.id, f"one key, two jobs: {first}, {accepted.job.id}"
        self.prompts.update(dict.fromkeys(self.ids[before:], prompt))

    def _limit_was_reached(self, wish: Wish) -> None:
        assert wish.is_limited, "a caller without limits was refused for one"
        shown, _ = self.at.under_way(METER)
        assert shown == MOST_AT_ONCE, f"refused with {shown} of {MOST_AT_ONCE} under way"

    async def dispatch(
        self, picks: Sequence[int], *, keep: bool, were_gathered: bool = False
    ) -> None:
        """Receive, and hand messages over; they stay if that fails, or to come again."""
        self.messages += await self.at.receive()
        if not self.messages:
            return
        taken = [self.messages[pick % len(self.messages)] for pick in picks]
        dispatching = self.dispatcher.dispatch(taken, were_gathered=were_gathered)
        done = await self._try(dispatching)
        self.orders += self.at.started()
        if done and not keep:
            self.messages = [message for message in self.messages if message not in taken]

    async def run(self, orders: Sequence[BatchOrder]) -> None:
        """Run orders side by side, until each has ended or is held by its engine."""
        tasks = [asyncio.create_task(self._run(order)) for order in orders]
        self.ran += orders
        self.tasks += tasks
        await self._quiet(tasks)

    async def _run(self, order: BatchOrder) -> None:
        task = asyncio.current_task()
        assert task is not None
        RUNNER.set(task)
        await self.batcher.run(order)

    async def _quiet(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        while not all(task.done() or task in self.engine.held for task in tasks):
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.001)
        for task in tasks:
            if task.done() and not task.cancelled():
                task.result()

    async def wake(self, runner: asyncio.Task[None]) -> None:
        """Let a runner go on that was held."""
        self.engine.wake(runner)
        await self._quiet([runner])

    async def kill(self, runner: asyncio.Task[None]) -> None:
        """End a runner that is held."""
        self.engine.held.pop(runner)
        self.engine.has_died(runner)
        runner.cancel()
        await self._quiet([runner])

    async def stop(self) -> None:
        """End all runners."""
        for runner in list(self.engine.held):
            await self.kill(runner)

    async def give_back(
        self, owner: str, job_ids: Sequence[JobId], failure: Failure, *, lost: bool
    ) -> None:
        """Give back what a batch may still hold."""
        await self._try(self._give_back(owner, job_ids, failure, lost=lost))

    async def cancel(self, job_id: JobId) -> None:
        """Cancel a job that was accepted; it may have ended."""
        self.cancelled.add(job_id)
        with suppress(JobNotCancellable):
            await self._try(self.results.cancel(job_id, self._tenant(job_id), self.runner.abort))

    async def read(self, job_id: JobId) -> JobView | None:
        """What a caller is shown; None if that failed."""
        try:
            return await self.results.get(job_id, self._tenant(job_id))
        except JobNotFound:
            raise AssertionError(f"{job_id} was accepted, and is not there") from None
        except Unavailable:
            assert self.trouble.happened
            return None

    async def sweep(self) -> None:
        """Look after what nobody has moved for too long."""
        await self._try(self.sweeper.sweep())

    async def _try(self, work: Awaitable[object]) -> bool:
        try:
            await work
        except Unavailable:
            assert self.trouble.happened, "failed, and nothing had gone wrong"
            return False
        return True

    def _tenant(self, job_id: JobId) -> str:
        return self.accepted[job_id].caller.tenant


async def _no_views(spec: ModelSpec, tier: SlaTier) -> Sequence[PoolView]:
    return ()
