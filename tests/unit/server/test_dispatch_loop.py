"""The dispatch loop: whatever goes wrong a lane goes on, and no job is forgotten."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import pytest

from synapse.adapters.local.batch_starter import InProcessBatchStarter
from synapse.adapters.local.queue import LocalJobQueue
from synapse.application.intake import SubmitJob, message_of
from synapse.domain.batching import BatchPolicy
from synapse.domain.errors import Unavailable
from synapse.domain.extension import NO_EXTENSIONS, Extension, Extensions
from synapse.domain.inference import TOKEN_IDS, ModelInput
from synapse.domain.job import JobId, JobState, SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.worker import CacheLevel, Worker, WorkerModel, WorkerState
from synapse.ports import BatchOrder, InferenceRequest
from synapse_server import dispatch_loop
from synapse_server.dispatch_loop import DispatchLoop
from tests.factories import a_job, a_model, a_pool
from tests.fakes import Answer, MemoryRegistry, ScriptedEngine
from tests.faults import failing_before
from tests.patience import PATIENCE_S, until
from tests.unit.application.world import World

SLOTS = 2
ECHO = a_model("echo", slots=SLOTS)


@dataclass
class Line:
    """A dispatch loop over a world of fakes, and the local adapters that it drives."""

    world: World = field(default_factory=lambda: World(queue=LocalJobQueue()))

    def __post_init__(self) -> None:
        self.batcher: Any = self.world.batcher
        self.starter = InProcessBatchStarter(
            lambda order: self.batcher.run(order), self.world.slots
        )
        self.world.starter = self.starter
        self.dispatcher: Any = self.world.dispatcher

    @contextlib.asynccontextmanager
    async def running(self, specs: Sequence[ModelSpec] = (ECHO,)) -> AsyncIterator[None]:
        world = self.world
        loop = DispatchLoop(
            world.queue,
            self.dispatcher,
            world.fleet.windows,
            world.slots,
            self.starter,
            world.clock,
        )
        task = asyncio.create_task(loop.run(specs))
        try:
            yield
        finally:
            assert not task.done(), "the loop ended by itself"
            task.cancel()
            await asyncio.wait([task])
            await self.starter.close(0)

    async def ended(self, count: int) -> None:
        """Return when so many jobs have completed."""
        await until(lambda: list(self.world.states().values()).count(JobState.COMPLETED) >= count)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch_loop, "PAUSE_S", 0.001)
    monkeypatch.setattr(dispatch_loop, "LOOK_AGAIN_S", 0.001)


async def test_what_is_submitted_runs() -> None:
    line = Line()

    async with line.running():
        for _ in range(10):
            await line.world.submit()
        await line.ended(10)

    assert line.world.slots.in_flight("echo") == 0


@pytest.mark.parametrize("error", [Unavailable("the disk is full"), RuntimeError("a bug")])
async def test_jobs_whose_start_failed_are_started_again(error: Exception) -> None:
    line = Line()
    line.dispatcher = failing_before(line.dispatcher, dispatch=[error])

    async with line.running():
        for _ in range(5):
            await line.world.submit()
        await line.ended(5)


async def test_a_job_that_cannot_be_started_spares_the_others_and_is_left_to_the_sweeper(
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = Line()
    bug = RuntimeError("a bug")
    await line.world.submit()
    await line.world.submit()
    line.dispatcher = failing_before(line.dispatcher, dispatch=[bug, bug])

    async with line.running():
        await line.ended(1)
        assert sorted(line.world.states().values()) == [JobState.COMPLETED, JobState.QUEUED]
        line.world.clock.advance(150)
        await line.world.sweeper.sweep()
        await line.ended(2)

    assert "job not started" in caplog.text


async def test_an_unforeseen_error_of_the_queue_ends_no_lane(
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = Line()
    line.world.queue = failing_before(line.world.queue, wait=[RuntimeError("a bug")] * 3)

    async with line.running():
        await line.world.submit()
        await line.ended(1)

    assert caplog.text.count("dispatching failed") == 3


async def test_one_models_trouble_is_not_anothers() -> None:
    line = Line()
    wait = line.world.queue.wait

    class Broken(LocalJobQueue):
        async def wait(
            self,
            model: str,
            tier: SlaTier,
            at_least: int = 1,
            requires: Extensions = NO_EXTENSIONS,
        ) -> None:
            if model != "echo":
                raise RuntimeError("a bug")
            await wait(model, tier, at_least, requires)

    broken = Broken()
    broken.__dict__ = line.world.queue.__dict__
    line.world.queue = broken

    async with line.running([ECHO, a_model("other")]):
        await line.world.submit()
        await line.ended(1)


async def suspect(line: Line) -> None:
    """A job that was on a worker when it went down."""
    job = await line.world.submit()
    line.world.queue.discard(job.id)
    again = await line.world.store.requeue(job, line.world.clock(), lost=True)
    assert again is not None
    await line.world.queue.send([message_of(again)])


@pytest.mark.parametrize("error", [Unavailable("no pool"), RuntimeError("a bug")])
async def test_the_suspects_lane_goes_on_after_an_error(error: Exception) -> None:
    line = Line()
    line.dispatcher = failing_before(line.dispatcher, plan=[error])
    await suspect(line)
    await suspect(line)

    async with line.running():
        # After Unavailable the suspect has another turn; after a bug it is the sweeper's.
        await line.ended(2 if isinstance(error, Unavailable) else 1)
        line.world.clock.advance(300)
        await line.world.sweeper.sweep()
        await line.ended(2)

    assert line.world.slots.in_flight("echo") == 0


async def test_a_suspect_whose_batcher_cannot_give_it_back_is_tried_again() -> None:
    line = Line()
    line.batcher = failing_before(line.batcher, run=[Unavailable("the disk is full")])
    await suspect(line)

    async with line.running():
        await line.ended(1)


async def test_a_suspect_that_runs_when_the_server_is_stopped_has_as_long_to_end_as_others() -> (
    None
):
    line = Line()
    runs, go_on, run = asyncio.Event(), asyncio.Event(), line.batcher.run

    class Held:
        async def run(self, order: BatchOrder) -> None:
            runs.set()
            await go_on.wait()
            await run(order)

    line.batcher = Held()
    await suspect(line)
    world = line.world
    loop = DispatchLoop(
        world.queue, world.dispatcher, world.fleet.windows, world.slots, line.starter, world.clock
    )
    dispatching = asyncio.create_task(loop.run((ECHO,)))
    await runs.wait()
    assert world.slots.in_flight("echo") == 1

    dispatching.cancel()
    await asyncio.wait([dispatching])
    stopping = asyncio.create_task(line.starter.close(PATIENCE_S))
    await asyncio.sleep(0)
    go_on.set()
    await stopping

    assert list(world.states().values()) == [JobState.COMPLETED]
    assert world.slots.in_flight("echo") == 0


async def test_jobs_of_a_model_that_is_served_no_more_fail_and_leave_the_queue() -> None:
    line = Line()
    jobs = [
        a_job(model="old", sla=tier, losses=losses, requires=requires)
        for tier, losses, requires in product(SlaTier, (0, 1), (NO_EXTENSIONS, TOKEN_IDS))
    ]
    await line.world.store.create_many(jobs)
    await line.world.queue.send([message_of(job) for job in jobs])

    async with line.running():
        await line.world.submit()
        await line.ended(1)
        await until(lambda: len(line.world.queue) == 0)
        await until(lambda: JobState.QUEUED not in line.world.states().values())

    ended = [await line.world.job(job.id) for job in jobs]
    assert {job.state for job in ended} == {JobState.FAILED}
    assert {job.failure.code for job in ended if job.failure} == {"model_not_found"}


async def test_those_that_cannot_be_ended_yet_are_ended_later(
    caplog: pytest.LogCaptureFixture,
) -> None:
    line = Line()
    job = a_job(model="old")
    await line.world.store.create(job)
    await line.world.queue.send([message_of(job)])
    line.dispatcher = failing_before(line.dispatcher, plan=[Unavailable("the disk is full")])

    async with line.running():
        await until(lambda: line.world.states()[job.id] is JobState.FAILED)

    assert "jobs of a withdrawn model not ended" in caplog.text
    assert len(line.world.queue) == 0


def a_fleet(*pools: Pool) -> World:
    """A world of these pools, whose workers come and go."""
    registry = MemoryRegistry([ECHO, a_model("other")], pools)
    return World(queue=LocalJobQueue(), registry=registry)


async def comes_up(world: World, pool: str, model: str = "echo") -> None:
    known = (WorkerModel(model, "1", CacheLevel.GPU_RESIDENT),)
    now = world.clock()
    state, until = WorkerState.READY, now + 1e6
    await world.workers.beat(
        Worker(f"{pool}-1", pool, "cpu", state, "127.0.0.1:1", known, now, now, until)
    )
    world.fleet.roster.stale()


def served_by(world: World) -> list[str]:
    """The pools of the jobs that have ended, by id of job."""
    ended = sorted(world.store.jobs.values(), key=lambda job: job.id)
    return [job.served.pool for job in ended if job.served is not None]


async def test_jobs_wait_in_the_queue_until_a_worker_is_up() -> None:
    line = Line(a_fleet(a_pool("slow", endpoint="")))

    async with line.running():
        await line.world.submit()
        await asyncio.sleep(0.01)
        assert line.world.queue.waiting("echo", SlaTier.BRONZE) == 1
        assert line.world.engine.calls == []
        await comes_up(line.world, "slow")
        await line.ended(1)


def fails(world: World, *, mild: bool) -> None:
    """Open the breaker of the only worker, for good."""
    vitals = world.fleet.vitals
    vitals.clock = lambda: 0.0
    breaker = vitals.breaker("echo", "slow", "slow-1")
    ticket = breaker.began(0.0)
    for _ in range(3):
        breaker.failed(ticket, 0.0, mild=mild)


async def test_jobs_go_on_where_the_only_worker_is_late() -> None:
    line = Line(a_fleet(a_pool("slow", endpoint="")))
    await comes_up(line.world, "slow")
    fails(line.world, mild=True)

    async with line.running():
        for _ in range(5):
            await line.world.submit()
        await line.ended(5)


async def test_jobs_wait_where_the_only_worker_fails() -> None:
    line = Line(a_fleet(a_pool("slow", endpoint="")))
    await comes_up(line.world, "slow")
    fails(line.world, mild=False)

    async with line.running():
        await line.world.submit()
        await asyncio.sleep(0.01)

    assert line.world.queue.waiting("echo", SlaTier.BRONZE) == 1


async def test_a_suspect_waits_for_a_worker_of_its_own_model() -> None:
    line = Line(a_fleet(a_pool("slow", endpoint="")))
    await comes_up(line.world, "slow", "other")
    await suspect(line)

    async with line.running():
        await asyncio.sleep(0.01)
        assert line.world.engine.calls == []
        await comes_up(line.world, "slow")
        await line.ended(1)


async def test_a_suspect_whose_worker_goes_before_its_turn_waits_in_the_queue_again() -> None:
    line = Line(a_fleet(a_pool("slow", endpoint="")))
    await comes_up(line.world, "slow")
    first_runs, go_on = asyncio.Event(), asyncio.Event()
    run = line.batcher.run

    class Held:
        """Has the first one run until the test goes on."""

        async def run(self, order: BatchOrder) -> None:
            first_runs.set()
            await go_on.wait()
            await run(order)

    line.batcher = Held()
    for _ in range(3):
        await suspect(line)

    async with line.running():
        async with asyncio.timeout(PATIENCE_S):
            await first_runs.wait()
        assert line.world.queue.waiting("echo", SlaTier.BRONZE) == 0, "two were set aside"
        await comes_up(line.world, "slow", "other")
        go_on.set()
        # Only what waits there has workers started, and models loaded.
        await until(lambda: line.world.queue.waiting("echo", SlaTier.BRONZE) >= 2)
        await comes_up(line.world, "slow")
        await line.ended(3)


async def test_a_batch_goes_to_a_pool_whose_worker_is_up_though_another_is_cheaper() -> None:
    cold, warm = a_pool("cold", endpoint="", price_per_hour_usd=0.0), a_pool("warm", endpoint="")
    line = Line(a_fleet(cold, warm))
    await comes_up(line.world, "warm")

    async with line.running():
        await line.world.submit()
        await line.ended(1)

    assert served_by(line.world) == ["warm"]


async def test_jobs_of_token_ids_go_where_engines_take_them_and_hold_up_nobody_meanwhile() -> None:
    vllm = a_pool("vllm", price_per_hour_usd=0.1, extensions=frozenset({Extension.PRIORITY}))
    line = Line(a_fleet(vllm, a_pool("llama", endpoint="", price_per_hour_usd=9.0)))
    ids = SubmitJob("echo", ModelInput(prompt=(5, 17)))

    async with line.running():
        waiting = (await line.world.submitter.submit(ids)).job
        for _ in range(3):
            await line.world.submit()
        await line.ended(3)
        assert served_by(line.world) == ["vllm"] * 3
        assert line.world.queue.waiting("echo", SlaTier.BRONZE, TOKEN_IDS) == 1
        await comes_up(line.world, "llama")
        await line.ended(4)

    served = line.world.store.jobs[waiting.id].served
    assert served is not None
    assert served.pool == "llama"


async def test_what_finds_no_room_in_the_first_pool_goes_to_the_next() -> None:
    line = Line(a_fleet(a_pool("cheap", price_per_hour_usd=0.1), a_pool("dear")))
    slots = line.world.slots
    slots.occupy("echo", "cheap", SLOTS)
    entry = await slots.enter("echo", "dear", 1, SLOTS, line.world.clock() + 60, SlaTier.BRONZE)
    assert entry is not None

    async with line.running():
        for _ in range(3):
            await line.world.submit()
        await line.ended(3)

    assert set(served_by(line.world)) == {"dear"}


async def test_bronze_that_finds_no_room_holds_up_neither_gold_nor_silver() -> None:
    line = Line(a_fleet(a_pool("only")))
    slots, clock = line.world.slots, line.world.clock
    # One of gold is in flight, and the slot beside it is kept for another.
    entry = await slots.enter("echo", "only", 1, SLOTS, clock() + 60, SlaTier.GOLD)
    assert entry is not None

    async with line.running():
        for _ in range(5):
            await line.world.submit()
        await asyncio.sleep(0.01)
        assert line.world.queue.waiting("echo", SlaTier.BRONZE) == 5
        await line.world.submit(sla=SlaTier.SILVER)
        await line.world.submit(sla=SlaTier.GOLD)
        await line.ended(2)
        assert line.world.queue.waiting("echo", SlaTier.BRONZE) == 5
        await slots.leave(entry)
        await line.ended(7)


async def test_of_those_that_wait_for_the_same_slot_the_better_tier_is_first() -> None:
    line = Line(a_fleet(a_pool("only")))
    slots, clock = line.world.slots, line.world.clock
    entries = [await slots.enter("echo", "only", 1, 9, clock() + 60) for _ in range(SLOTS)]

    async with line.running():
        for tier in (SlaTier.BRONZE, SlaTier.SILVER, SlaTier.GOLD):
            await line.world.submit(tier.value, sla=tier)
        await asyncio.sleep(0.01)
        for entry in entries:
            assert entry is not None
            await slots.leave(entry)
            await asyncio.sleep(0.005)
        await line.ended(3)

    asked = [
        request.input.prompt for _, _, requests in line.world.engine.calls for request in requests
    ]
    assert asked[0] == "gold"
    assert asked[-1] == "bronze"


async def test_a_job_never_starts_in_front_of_direct_requests_and_follows_when_they_leave() -> None:
    line = Line(a_fleet(a_pool("gpu")))
    slots, clock = line.world.slots, line.world.clock
    entries = [
        await slots.enter("echo", "gpu", 1, 10 * SLOTS, clock() + 60) for _ in range(SLOTS + 2)
    ]

    async with line.running():
        await line.world.submit(sla=SlaTier.SILVER)
        for entry in entries[:2]:
            # Those that leave are followed by those that wait: the slots are still taken.
            assert entry is not None
            await slots.leave(entry)
            await asyncio.sleep(0.005)
            assert JobState.COMPLETED not in line.world.states().values()
        assert entries[2] is not None
        await slots.leave(entries[2])
        await line.ended(1)


async def test_direct_requests_that_come_while_a_batch_gathers_take_its_slots() -> None:
    line = Line(a_fleet(a_pool("gpu")))
    patient = replace(ECHO, batch=BatchPolicy(max_items=2, max_tokens=1000, max_wait_ms=3.6e6))
    slots, clock = line.world.slots, line.world.clock
    assert await slots.enter("echo", "gpu", 1, SLOTS, clock() + 60) is not None

    async with line.running([patient]):
        await line.world.submit(sla=SlaTier.SILVER)
        await asyncio.sleep(0.005)
        late = await slots.enter("echo", "gpu", 1, SLOTS, clock() + 60)
        assert late is not None
        await line.world.submit(sla=SlaTier.SILVER)  # now the batch is full, but its slot is taken
        await asyncio.sleep(0.02)
        assert JobState.COMPLETED not in line.world.states().values()
        await slots.leave(late)
        await line.ended(1)


async def test_jobs_progress_in_the_slots_that_direct_requests_leave() -> None:
    line = Line()
    slots, clock = line.world.slots, line.world.clock
    assert await slots.enter("echo", "gpu", SLOTS - 1, SLOTS, clock() + 3600) is not None

    async with line.running():
        for _ in range(10):
            await line.world.submit()
        await line.ended(10)


class Crowd(ScriptedEngine):
    """Notes how many samples it was at work on at the most."""

    now = most = 0

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Answer], None]:
        samples = sum(request.input.samples for request in requests)
        self.now += samples
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.001)
        async for outcome in super().infer(model, pool, requests):
            yield outcome
        self.now -= samples


@pytest.mark.parametrize(("samples", "most"), [(1, SLOTS), (SLOTS, SLOTS), (SLOTS + 3, SLOTS + 3)])
async def test_a_job_takes_a_slot_for_each_of_its_samples(samples: int, most: int) -> None:
    registry = MemoryRegistry([ECHO], [a_pool("gpu")])
    line = Line(World(queue=LocalJobQueue(), registry=registry, engine=Crowd()))
    world, starter = line.world, line.starter
    world.runner.items_begin = lambda batch, items: starter.begin(batch.id, items)
    world.runner.items_left = lambda batch, items: starter.release(batch.id, items)

    async with line.running():
        for _ in range(6):
            await world.submit(input=ModelInput("hello", samples=samples))
        await line.ended(6)
        await until(lambda: world.slots.in_flight("echo") == 0)

    assert world.engine.most == most
