"""The batcher: retry, fall back, give back. `tests/e2e` holds the state machine to the same."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from synapse.application.give_back import TOGETHER
from synapse.domain.errors import EngineFull, EngineLost, EngineUnavailable, Unavailable
from synapse.domain.inference import Completion
from synapse.domain.job import Failure, Job, JobId, JobState, Usage
from synapse.ports import InferenceRequest
from tests.factories import a_lease, a_pool, an_order
from tests.fakes import Answer, ScriptedEngine
from tests.faults import failing_before
from tests.patience import PATIENCE_S
from tests.unit.application.world import World

OK = Completion("ok", "stop", Usage(1, 1))
REFUSED = EngineUnavailable("connection refused")
POOL = a_pool("gpu")
LOST = Failure("worker_lost", "the worker went down")


async def test_a_refusal_is_retried_on_the_same_pool_with_growing_waits() -> None:
    answers: list[Answer] = [REFUSED, REFUSED, OK]
    world = World(engine=ScriptedEngine(lambda _: answers.pop(0)))
    job = await world.submit()

    await world.work()

    assert (await world.job(job.id)).state is JobState.COMPLETED
    assert [pool.name for _, pool, _ in world.engine.calls] == ["gpu", "gpu", "gpu"]
    assert world.slept_s == [0.25, 0.5]


async def test_who_is_not_to_wait_for_a_slot_goes_back_at_once_and_has_lost_nothing() -> None:
    full = EngineFull("no slot for long")
    world = World()
    job = await world.submit()
    world.queue.messages.clear()
    runner = failing_before(world.runner, run=[full])

    await replace(world.batcher, runner=runner).run(an_order(job.id, pools=(POOL, POOL)))

    again = await world.job(job.id)
    assert (again.state, again.losses) == (JobState.QUEUED, 0)
    assert [message.job_id for message in world.queue.messages] == [job.id]
    assert (world.slept_s, world.engine.calls) == ([], [])


async def test_a_pool_that_keeps_refusing_is_left_for_the_next() -> None:
    answers: list[Answer] = [REFUSED, REFUSED, REFUSED, OK]
    world = World(engine=ScriptedEngine(lambda _: answers.pop(0)))
    job = await world.submit()

    await world.work()

    served = (await world.job(job.id)).served
    assert served is not None
    assert served.pool == "cpu"


async def test_whoever_counts_slots_is_told_where_a_batch_is_tried() -> None:
    world = World(engine=ScriptedEngine(lambda _: REFUSED))
    job = await world.submit()
    moves: list[tuple[str, str]] = []
    batcher = replace(world.batcher, moved=lambda batch, pool: moves.append((batch.id, pool.name)))

    await batcher.run(an_order(job.id, id="b", pools=(a_pool("gpu"), a_pool("cpu"))))

    assert moves == [("b", "gpu"), ("b", "cpu")]


async def test_a_job_that_no_pool_takes_goes_back_to_its_queue_and_costs_nothing() -> None:
    world = World(engine=ScriptedEngine(lambda _: REFUSED))
    job = await world.submit()

    await world.work()

    again = await world.job(job.id)
    assert (again.state, again.losses) == (JobState.QUEUED, 0)
    assert [message.job_id for message in world.queue.messages] == [job.id]


async def test_an_outage_of_any_length_fails_no_job_before_its_deadline() -> None:
    world = World(engine=ScriptedEngine(lambda _: REFUSED))
    job = await world.submit(timeout_s=3600.0)
    for _ in range(40):
        await world.work()
    world.engine = world.runner.engine = ScriptedEngine()

    await world.work()

    assert (await world.job(job.id)).state is JobState.COMPLETED


async def test_a_lost_worker_sends_its_jobs_back_to_run_alone() -> None:
    crashes = [EngineLost("stream broke"), EngineLost("stream broke")]
    world = World(engine=ScriptedEngine(lambda _: crashes.pop() if crashes else OK))
    jobs = [await world.submit("a"), await world.submit("b")]

    await world.work()
    assert all(message.is_suspect for message in world.queue.messages)
    await world.work()

    assert set(world.states().values()) == {JobState.COMPLETED}
    assert [len(requests) for _, _, requests in world.engine.calls] == [2, 1, 1]
    assert [(await world.job(job.id)).losses for job in jobs] == [1, 1]


async def test_a_job_that_kills_every_worker_fails_and_takes_nobody_along() -> None:
    world = World()
    poison = await world.submit("poison")
    others = [await world.submit("fine") for _ in range(3)]

    def script(request: InferenceRequest) -> Answer:
        batch = world.engine.calls[-1][2]
        died = any(other.input.prompt == "poison" for other in batch)
        return EngineLost("the worker went down") if died else OK

    world.engine = world.runner.engine = ScriptedEngine(script)
    for _ in range(5):
        await world.work()

    failed = await world.job(poison.id)
    assert failed.state is JobState.FAILED
    assert failed.failure is not None
    assert failed.failure.code == "worker_lost"
    assert {(await world.job(job.id)).state for job in others} == {JobState.COMPLETED}
    assert not world.queue.messages


async def test_an_unforeseen_error_counts_as_a_loss_and_never_escapes() -> None:
    def broken(request: InferenceRequest) -> Completion:
        raise ZeroDivisionError

    world = World(engine=ScriptedEngine(broken))
    job = await world.submit()

    await world.work()

    assert (await world.job(job.id)).state is JobState.QUEUED
    assert [message.job_id for message in world.queue.messages] == [job.id]


async def test_an_unforeseen_error_counts_as_a_loss_also_after_a_refusal() -> None:
    world = World()
    job = await world.submit()
    await world.store.claim([job.id], a_lease("b"), world.clock())
    runner = failing_before(world.runner, run=[REFUSED, ZeroDivisionError()])

    await replace(world.batcher, runner=runner).run(an_order(job.id, id="b"))

    assert (await world.job(job.id)).losses == 1


async def test_an_end_that_cannot_be_written_down_costs_no_worker_and_is_tried_again() -> None:
    world = World(engine=ScriptedEngine(lambda _: OK))
    job = await world.submit()
    full = Unavailable("the disk is full")
    world.runner.store = failing_before(world.store, settle=[full, full])

    await world.work()

    done = await world.job(job.id)
    assert (done.state, done.losses) == (JobState.COMPLETED, 0)


async def test_a_spent_job_whose_end_cannot_be_written_down_is_queued_once_more() -> None:
    world = World(engine=ScriptedEngine(lambda _: EngineLost("it died")))
    job, other = await world.submit(), await world.submit()
    for _ in range(2):
        await world.work()
    world.store = failing_before(world.store, settle=[Unavailable("the disk is full")])

    await world.work()

    states = [(await world.job(each.id)).state for each in (job, other)]
    assert sorted(states) == [JobState.FAILED, JobState.QUEUED]
    await world.work()
    assert {(await world.job(each.id)).state for each in (job, other)} == {JobState.FAILED}


async def test_a_batch_that_is_given_back_again_has_lost_one_worker() -> None:
    """The state machine tries again, where the first time only the queue could not be reached."""
    world = World()
    job = await world.submit()
    await world.store.claim([job.id], a_lease("b"), world.clock())
    world.queue.messages.clear()
    down = Unavailable("SendMessageBatch failed for now")
    world.queue = failing_before(world.queue, send=[down, down])

    for _ in range(2):
        with pytest.raises(Unavailable):
            await world.give_back("b", [job.id], LOST, lost=True)
    await world.give_back("b", [job.id], LOST, lost=True)

    again = await world.job(job.id)
    assert (again.state, again.losses) == (JobState.QUEUED, 1)
    assert [message.job_id for message in world.queue.messages] == [job.id]


async def test_of_a_large_batch_what_is_given_back_is_queued_before_the_rest_is_looked_at() -> None:
    """Whoever gives it back may be cut off by the clock, each time that it begins anew."""
    world = World()
    jobs = [await world.submit() for _ in range(TOGETHER + 1)]
    await world.store.claim([job.id for job in jobs], a_lease("b"), world.clock())
    world.queue.messages.clear()
    world.store = failing_before(world.store, get=[None] * TOGETHER + [Unavailable("throttled")])

    with pytest.raises(Unavailable):
        await world.give_back("b", [job.id for job in jobs], LOST, lost=False)

    assert [m.job_id for m in world.queue.messages] == [job.id for job in jobs[:TOGETHER]]


async def test_jobs_are_given_back_side_by_side() -> None:
    class Meeting:
        """Nobody is told of a job before all have asked."""

        def __init__(self, store: Any) -> None:
            self._store, self._all_here = store, asyncio.Barrier(3)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._store, name)

        async def get(self, job_id: JobId) -> Job | None:
            async with asyncio.timeout(PATIENCE_S), self._all_here:
                job: Job | None = await self._store.get(job_id)
                return job

    world = World()
    jobs = [await world.submit() for _ in range(3)]
    world.queue.messages.clear()
    world.store = Meeting(world.store)

    await world.give_back("b", [job.id for job in jobs], LOST, lost=False)

    assert len(world.queue.messages) == 3


async def test_a_job_that_no_worker_had_begun_has_lost_none() -> None:
    world = World()
    job = await world.submit()
    world.queue.messages.clear()

    await world.give_back("b", [job.id], LOST, lost=True)

    assert (await world.job(job.id)).losses == 0
    assert [message.is_suspect for message in world.queue.messages] == [False]


async def test_what_cannot_be_given_back_is_left_to_the_sweeper() -> None:
    world = World(engine=ScriptedEngine(lambda _: REFUSED))
    job = await world.submit()
    world.queue = failing_before(world.queue, send=[Unavailable("the queue is full")])

    await world.work()

    assert (await world.job(job.id)).state is JobState.QUEUED
