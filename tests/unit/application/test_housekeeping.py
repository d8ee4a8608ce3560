"""Sweeping, pinging, dispatching: nothing accepted stays open for ever."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from synapse.application.results import Results
from synapse.domain.errors import EngineUnavailable, JobNotCancellable, JobNotFound, Unavailable
from synapse.domain.inference import Completion, ModelInput
from synapse.domain.job import Failure, Job, JobId, JobState, Lease, Usage
from synapse.domain.model import Task
from synapse.ports import InferenceRequest
from tests.factories import a_chat_model, a_message, a_pool
from tests.fakes import Answer, MemoryRegistry, ScriptedEngine
from tests.faults import failing_before
from tests.unit.application.world import CHAT, World


async def test_a_job_whose_message_was_lost_is_sent_again() -> None:
    world = World()
    job = await world.submit()
    world.queue.take()
    world.clock.advance(121.0)

    assert await world.sweeper.sweep() == {"resend": 1}
    await world.work()

    assert (await world.job(job.id)).state is JobState.COMPLETED


async def test_patience_doubles_so_a_backlog_is_not_multiplied() -> None:
    world = World()
    await world.submit(timeout_s=50_000.0)
    for _ in range(3600 // 10):
        world.clock.advance(10.0)
        await world.sweeper.sweep()

    assert len(world.queue.messages) == 1 + 4  # at 120, 360, 840 and 1,800 s


async def test_what_a_batch_gave_back_unbegun_has_not_used_up_the_patience() -> None:
    world = World()
    job = await world.submit(timeout_s=50_000.0)
    world.queue.take()
    world.clock.advance(300.0)
    await world.give_back("batch", [job.id], Failure("no_engine", "none is up"), lost=False)
    world.clock.advance(241.0)

    assert await world.sweeper.sweep() == {"resend": 1}
    assert (await world.job(job.id)).resends == 1


async def test_a_runner_that_died_loses_its_jobs_to_the_queue() -> None:
    world = World()
    job = await world.submit()
    [message] = world.queue.take()
    await world.store.claim([message.job_id], Lease("dead", world.clock() + 60.0), world.clock())
    world.clock.advance(61.0)

    await world.sweeper.sweep()
    await world.work()

    done = await world.job(job.id)
    assert (done.state, done.losses) == (JobState.COMPLETED, 1)


async def test_a_job_that_lost_three_runners_is_given_up() -> None:
    world = World()
    job = await world.submit(timeout_s=80_000.0)
    for attempt in range(3):
        lease = Lease(f"dead-{attempt}", world.clock() + 60.0)
        await world.store.claim([job.id], lease, world.clock())
        world.clock.advance(61.0)
        await world.sweeper.sweep()

    failed = await world.job(job.id)
    assert failed.state is JobState.FAILED
    assert failed.failure is not None
    assert failed.failure.code == "worker_lost"


async def test_deadlines_are_kept_though_the_queue_takes_nothing() -> None:
    world = World()
    stale, other = await world.submit(), await world.submit()
    world.clock.advance(60.0)
    short = await world.submit(timeout_s=100.0)
    world.queue.take()
    world.clock.advance(101.0)
    full = failing_before(world.queue, send=[Unavailable("the queue is full")])
    world.queue = full

    assert await world.sweeper.sweep() == {"expire": 1}

    assert (await world.job(short.id)).state is JobState.EXPIRED
    assert not full.messages
    # The one that was refused waits its time; the other goes as soon as there is room.
    assert await world.sweeper.sweep() == {"resend": 1}
    world.clock.advance(241.0)
    await world.sweeper.sweep()
    assert {message.job_id for message in full.messages} == {stale.id, other.id}


async def test_a_sweep_that_takes_too_long_leaves_the_rest_for_the_next_one() -> None:
    world = World()
    for _ in range(3):
        await world.submit(timeout_s=10.0)
    world.clock.advance(11.0)
    close = world.store.close

    async def slowly(*args: Any) -> Job | None:
        world.clock.advance(6.0)
        return await close(*args)  # type: ignore[no-any-return]

    world.store.close = slowly

    assert await world.sweeper.sweep(for_s=10.0) == {"expire": 2}
    assert await world.sweeper.sweep(for_s=10.0) == {"expire": 1}


async def test_where_more_are_due_than_are_looked_at_those_that_are_not_sent_make_way() -> None:
    world = World()
    for _ in range(3):
        await world.submit()
    world.clock.advance(60.0)
    short = await world.submit(timeout_s=100.0)
    world.clock.advance(101.0)
    world.queue = failing_before(world.queue, send=[Unavailable("the queue is full")] * 9)

    swept = [dict(await world.sweeper.sweep(limit=2)) for _ in range(3)]

    assert {"expire": 1} in swept
    assert (await world.job(short.id)).state is JobState.EXPIRED


@pytest.mark.parametrize("running", [False, True])
async def test_an_open_job_past_its_deadline_expires(running: bool) -> None:
    world = World()
    job = await world.submit(timeout_s=30.0)
    if running:
        await world.store.claim([job.id], Lease("b", world.clock() + 900.0), world.clock())
    world.clock.advance(31.0)

    await world.sweeper.sweep()

    assert (await world.job(job.id)).state is JobState.EXPIRED


async def test_reading_a_job_past_its_deadline_expires_it() -> None:
    world = World()
    job = await world.submit(timeout_s=30.0)
    world.clock.advance(31.0)

    assert (await world.results.get(job.id, "default")).job.state is JobState.EXPIRED
    assert (await world.job(job.id)).state is JobState.EXPIRED


async def test_waiting_returns_as_soon_as_the_job_ends() -> None:
    world = World()
    job = await world.submit()
    ended_at: list[float] = []

    async def finish(*_: object) -> None:
        await world.work()
        ended_at.append(world.clock())

    store = failing_before(world.store)
    store.watch = finish
    results = Results(store, world.blobs, world.telemetry, world.clock)
    view = await results.get(job.id, "default", 30.0)

    assert view.job.state is JobState.COMPLETED
    assert ended_at


async def test_a_clock_that_is_set_back_holds_no_answer() -> None:
    world = World()
    job = await world.submit()

    async def a_while(job_id: JobId, timeout_s: float) -> None:
        assert timeout_s <= 0.01
        world.clock.advance(-3600)
        await asyncio.sleep(timeout_s)

    store = failing_before(world.store)
    store.watch = a_while
    results = Results(store, world.blobs, world.telemetry, world.clock)
    view = await results.get(job.id, "default", 0.01)

    assert view.job.state is JobState.QUEUED


async def test_an_unknown_job_is_not_found() -> None:
    with pytest.raises(JobNotFound):
        await World().results.get(JobId("nope"), "default")
    with pytest.raises(JobNotFound):
        await World().results.cancel(JobId("nope"), "default", lambda _: None)


async def test_cancelling_twice_is_cancelling_and_after_the_end_a_conflict() -> None:
    world = World()
    job = await world.submit()
    done = await world.submit()
    aborted: list[JobId] = []

    first = await world.results.cancel(job.id, "default", aborted.append)
    second = await world.results.cancel(job.id, "default", aborted.append)
    await world.work()

    assert first.job.state is second.job.state is JobState.CANCELLED
    assert aborted == [job.id]
    with pytest.raises(JobNotCancellable):
        await world.results.cancel(done.id, "default", aborted.append)


async def test_a_withdrawn_model_fails_its_waiting_jobs() -> None:
    world = World()
    job = await world.submit()
    world.registry = MemoryRegistry([a_chat_model()], [a_pool()])

    await world.dispatcher.dispatch(world.queue.take())

    assert (await world.job(job.id)).state is JobState.FAILED
    assert not world.starter.orders


async def test_jobs_of_a_model_without_a_pool_are_left_and_those_beside_them_are_started() -> None:
    world = World()
    jobs = [await world.submit(model=name) for name in ("echo", CHAT, "echo", CHAT)]
    models = await world.registry.models()
    world.registry = MemoryRegistry(models, [a_pool(models=frozenset({CHAT}))])

    left = await world.dispatcher.dispatch(world.queue.take())

    assert set(left) == {jobs[0].id, jobs[2].id}
    [order] = world.starter.orders
    assert set(order.batch.job_ids) == {jobs[1].id, jobs[3].id}


async def test_messages_of_many_models_become_batches_of_one_model_each() -> None:
    world = World()
    messages = [a_message(model=name) for name in ("echo", "smollm2-135m-instruct", "echo")]

    await world.dispatcher.dispatch(messages)

    assert [(o.batch.model, len(o.batch.job_ids)) for o in world.starter.orders] == [
        ("echo", 2),
        ("smollm2-135m-instruct", 1),
    ]
    assert [pool.name for pool in world.starter.orders[0].pools] == ["gpu", "cpu"]


async def test_the_pinger_tries_every_pair_and_remembers_what_it_saw() -> None:
    def script(request: InferenceRequest) -> Answer:
        if request.id.endswith("-cpu"):
            return EngineUnavailable("connection refused")
        return Completion("p", "length", Usage(1, 1))

    world = World(engine=ScriptedEngine(script))

    seen = await world.pinger.ping()

    assert {(h.pool, h.healthy, h.detail) for h in seen} == {
        ("gpu", True, ""),
        ("cpu", False, "connection refused"),
    }
    assert len(await world.registry.health()) == 6
    for model, _, (request,) in world.engine.calls:
        if model.task is Task.EMBED:
            assert request.input == ModelInput(inputs=("ping",))
        else:
            assert request.input == ModelInput("ping", parameters={"max_tokens": 1})


async def test_the_first_ping_makes_the_first_wait_estimate() -> None:
    world = World()
    await world.pinger.ping()
    first = (await world.registry.service_rate("echo", world.clock())).items

    await world.pinger.ping()

    assert first >= 1
    assert (await world.registry.service_rate("echo", world.clock())).items == first
