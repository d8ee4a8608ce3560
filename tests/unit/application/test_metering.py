"""Metering: every job is settled once, however it ends; who has no limits costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from synapse.application.direct import DirectRequest
from synapse.application.metered_jobs import MeteredJobs
from synapse.application.metering import Metering
from synapse.domain.access import ANYONE, Limits, Principal
from synapse.domain.errors import (
    EngineError,
    EngineLost,
    EngineTimeout,
    EngineUnavailable,
    InvalidInput,
    LimitReached,
    Unavailable,
)
from synapse.domain.inference import Completion, ModelInput
from synapse.domain.job import Job, JobState, Usage
from synapse.domain.metering import Counts, MeterId
from synapse.domain.routing import PoolView
from synapse.domain.usage import Used
from synapse.ports import InferenceRequest
from tests.factories import a_batch, a_lease, a_pool
from tests.fake_meter import MemoryMeter
from tests.fakes import FakeClock, MemoryJobStore, ScriptedEngine
from tests.faults import failing_after, failing_before
from tests.unit.application.world import World

KEY = MeterId("default", "key1")
LIMITS = Limits(requests_per_minute=1000, concurrent_jobs=5, tokens_per_minute=100_000)
CALLER = Principal("default", "key1", limits=LIMITS)
ASKED = ModelInput("hello", parameters={"max_tokens": 20})


def answered(request: InferenceRequest) -> Completion:
    return Completion("hi", "stop", Usage(2, 3))


class MeteredWorld(World):
    """A world in which everything is counted."""

    def __init__(self, **changes: Any) -> None:
        clock = FakeClock()
        self.meter: Any = MemoryMeter()
        metering = Metering(self.meter, self.views, clock)
        store = MeteredJobs(MemoryJobStore(clock), metering)
        engine = changes.pop("engine", ScriptedEngine(answered))
        super().__init__(clock=clock, store=store, metering=metering, engine=engine, **changes)

    async def views(self, spec: Any, tier: Any) -> list[PoolView]:
        return []

    @property
    def counts(self) -> Counts:
        return self.meter.counts(KEY, self.clock())  # type: ignore[no-any-return]

    async def submitted(self, **changes: Any) -> Job:
        return await self.submit(**{"input": ASKED, "caller": CALLER, "timeout_s": 50, **changes})


async def completes(world: MeteredWorld, job: Job) -> None:
    await world.work()


async def is_refused(world: MeteredWorld, job: Job) -> None:
    world.engine._script = lambda request: InvalidInput("no")
    await world.work()


async def loses_its_workers(world: MeteredWorld, job: Job) -> None:
    world.engine._script = lambda request: EngineLost("it went down")
    for _ in range(3):
        await world.work()


async def is_cancelled(world: MeteredWorld, job: Job) -> None:
    await world.results.cancel(job.id, "default", lambda job_id: None)


async def is_cancelled_twice_at_once(world: MeteredWorld, job: Job) -> None:
    await asyncio.gather(is_cancelled(world, job), is_cancelled(world, job))


async def expires_unseen_until_it_is_read(world: MeteredWorld, job: Job) -> None:
    world.clock.advance(55)
    await world.results.get(job.id, "default")


async def is_swept(world: MeteredWorld, job: Job) -> None:
    world.clock.advance(55)
    await world.sweeper.sweep()


async def expires_while_it_waits_in_the_queue(world: MeteredWorld, job: Job) -> None:
    world.clock.advance(55)
    await world.work()


async def is_cut_by_its_engine(world: MeteredWorld, job: Job) -> None:
    def late(request: InferenceRequest) -> EngineTimeout:
        world.clock.advance(50)
        return EngineTimeout("the time allowed was over")

    world.engine._script = late
    await world.work()


async def runs_twice(world: MeteredWorld, job: Job) -> None:
    await world.dispatcher.dispatch(world.queue.take())
    [order] = world.starter.orders
    await asyncio.gather(world.batcher.run(order), world.batcher.run(order))


async def expires_as_its_reader_hangs_up(world: MeteredWorld, job: Job) -> None:
    world.clock.advance(55)
    begun, written = asyncio.Event(), asyncio.Event()
    store = world.store.store
    close = store.close

    async def write(*arguments: Any) -> Job | None:
        begun.set()
        await written.wait()
        return await close(*arguments)  # type: ignore[no-any-return]

    async def slow(*arguments: Any) -> Job | None:
        """As of a disk: what is handed to it is written, whoever waits for that."""
        return await asyncio.shield(asyncio.ensure_future(write(*arguments)))

    store.close = slow
    reading = asyncio.create_task(world.results.get(job.id, "default"))
    await begun.wait()
    reading.cancel()
    await asyncio.wait([reading])
    written.set()
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.telemetry.of("ended")


ENDS = [
    (completes, JobState.COMPLETED, 5),
    (runs_twice, JobState.COMPLETED, 5),
    (is_refused, JobState.FAILED, 0),
    (loses_its_workers, JobState.FAILED, 0),
    (is_cancelled, JobState.CANCELLED, 0),
    (is_cancelled_twice_at_once, JobState.CANCELLED, 0),
    (expires_unseen_until_it_is_read, JobState.EXPIRED, 0),
    (expires_as_its_reader_hangs_up, JobState.EXPIRED, 0),
    (is_swept, JobState.EXPIRED, 0),
    (expires_while_it_waits_in_the_queue, JobState.EXPIRED, 0),
    (is_cut_by_its_engine, JobState.EXPIRED, 22),
]


@pytest.mark.parametrize(("end", "state", "tokens"), ENDS)
async def test_a_job_is_settled_once_however_it_ends(
    end: Callable[[MeteredWorld, Job], Awaitable[None]], state: JobState, tokens: int
) -> None:
    world = MeteredWorld()
    job = await world.submitted()
    assert (world.counts.requests, world.counts.tokens, world.counts.open) == (1, 22, 1)

    await end(world, job)

    assert (await world.job(job.id)).state is state
    [entry] = world.meter.entries
    assert (entry.used.requests, entry.used.tokens) == (1, tokens)
    assert world.counts.open == 0


async def test_what_a_job_had_begun_counts_as_reserved_when_it_is_cancelled() -> None:
    """Nobody knows how far its worker had come: it is not for free to let it work and cancel."""
    world = MeteredWorld()
    job = await world.submitted()

    await world.store.claim([job.id], a_lease(), world.clock())
    await is_cancelled(world, job)
    assert (world.counts.tokens, world.counts.open) == (22, 0)


async def test_the_tokens_of_a_request_on_the_line_count_as_reserved_when_its_time_is_up() -> None:
    world = MeteredWorld(engine=ScriptedEngine(lambda request: EngineTimeout("too late")))
    request = DirectRequest("r1", "echo", ASKED, 5.0, caller=CALLER)
    with pytest.raises(EngineTimeout):
        await world.direct.run(request)
    assert (world.counts.tokens, world.counts.open) == (22, 0)


@pytest.mark.parametrize("end", [is_cancelled, expires_unseen_until_it_is_read, is_swept])
@pytest.mark.parametrize("why", [EngineUnavailable("no worker is up"), EngineLost("it went down")])
async def test_a_job_that_waits_again_has_used_nothing_when_it_ends(
    end: Callable[[MeteredWorld, Job], Awaitable[None]], why: EngineError
) -> None:
    world = MeteredWorld(engine=ScriptedEngine(lambda request: why))
    job = await world.submitted()
    await world.work()
    assert (await world.job(job.id)).state is JobState.QUEUED

    await end(world, job)

    [entry] = world.meter.entries
    assert (entry.used.requests, entry.used.tokens) == (1, 0)
    assert world.counts.open == 0


async def is_tried_again(world: MeteredWorld, job: Job) -> None:
    world.clock.advance(55)
    await world.runner.run(a_batch(job.id), a_pool("gpu"))


@pytest.mark.parametrize(
    "end", [is_cancelled, expires_unseen_until_it_is_read, is_swept, is_tried_again]
)
async def test_a_job_that_no_worker_took_has_used_nothing_when_it_ends_before_it_is_tried_again(
    end: Callable[[MeteredWorld, Job], Awaitable[None]],
) -> None:
    world = MeteredWorld(engine=ScriptedEngine(lambda request: EngineUnavailable("it is down")))
    job = await world.submitted()
    with pytest.raises(EngineUnavailable):
        await world.runner.run(a_batch(job.id), a_pool("gpu"))

    await end(world, job)

    assert (await world.job(job.id)).state.is_final
    [entry] = world.meter.entries
    assert (entry.used.requests, entry.used.tokens, entry.used.nano_usd) == (1, 0, 0)


@pytest.mark.parametrize("failing", [failing_before, failing_after])
async def test_a_job_that_cannot_be_recorded_is_not_counted(failing: Any) -> None:
    world = MeteredWorld()
    world.store = failing(world.store, recording=[Unavailable("no disk")])
    with pytest.raises(Unavailable):
        await world.submitted()
    assert (world.counts.requests, world.counts.open) == (0, 0)


async def test_a_job_that_cannot_be_queued_is_settled_and_counts_as_no_request() -> None:
    world = MeteredWorld()
    world.queue = failing_before(world.queue, send=[Unavailable("it is full")])
    with pytest.raises(Unavailable):
        await world.submitted()
    assert (world.counts.requests, world.counts.tokens, world.counts.open) == (0, 0, 0)
    [refused] = world.store.store.jobs.values()
    assert refused.failure is not None
    assert refused.failure.code == "not_queued"
    assert set(world.store.store.usage.sums.values()) == {Used()}


async def test_a_meter_that_cannot_be_reached_refuses_jobs_and_ends_those_there_are() -> None:
    world = MeteredWorld()
    job = await world.submitted()
    world.store.metering.meter.settle = _unavailable
    await world.work()
    assert (await world.job(job.id)).state is JobState.COMPLETED
    world.meter.reserve = _unavailable
    with pytest.raises(Unavailable):
        await world.submitted()


async def _unavailable(*arguments: object) -> Any:
    raise Unavailable("the meter cannot be reached")


async def test_a_budget_lets_nothing_through_whose_cost_nobody_can_reckon() -> None:
    world = MeteredWorld()
    caller = Principal("default", "key1", limits=Limits(monthly_usd=5.0))

    with pytest.raises(Unavailable, match="no pool serves model 'echo'"):
        await world.submitted(caller=caller)
    assert world.counts == Counts().at(world.clock())


async def test_jobs_beyond_the_limit_leave_nothing_behind() -> None:
    world = MeteredWorld()
    long = ModelInput("x" * 100_000, parameters={"max_tokens": 20})
    for _ in range(5):
        await world.submitted()
    with pytest.raises(LimitReached):
        await world.submitted(input=long)
    assert world.blobs.blobs == {}
    assert len(world.store.store.jobs) == 5


async def test_who_has_no_limits_causes_no_call_of_the_meter() -> None:
    world = MeteredWorld()
    world.meter.reserve = world.meter.settle = _unavailable
    job = await world.submitted(caller=ANYONE)
    assert not job.metered
    await world.work()
    assert (await world.job(job.id)).state is JobState.COMPLETED
