"""Running batches: every job ends once, whatever the engine does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import pytest

from synapse.application.payloads import (
    INLINE_LIMIT_BYTES,
    decode_result,
    encode_input,
    fetch,
)
from synapse.domain.batching import Batch
from synapse.domain.errors import (
    EngineError,
    EngineLost,
    EngineTimeout,
    EngineUnavailable,
    InvalidInput,
    Unavailable,
)
from synapse.domain.inference import ChatMessage, Completion, ModelInput
from synapse.domain.job import Failure, Job, JobId, JobState, Lease, Outcome, Payload, Usage
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest
from tests.factories import a_batch, a_pool
from tests.fakes import Answer, MeetingBlobStore, MemoryBlobStore, ScriptedEngine, echoed
from tests.faults import failing_before
from tests.unit.application.world import CHAT, World


async def _submitted(world: World, *prompts: str, model: str = "echo") -> list[Job]:
    jobs = [await world.submit(prompt, model=model) for prompt in prompts]
    world.queue.take()
    return jobs


async def test_each_job_gets_its_own_result_usage_and_place() -> None:
    world = World()
    jobs = await _submitted(world, "one", "two words")

    await world.runner.run(a_batch(*(job.id for job in jobs)), a_pool("gpu", accelerator="l4"))

    first, second = [await world.results.get(job.id, "default") for job in jobs]
    assert first.job.state is second.job.state is JobState.COMPLETED
    assert first.result == {"text": "one", "finish_reason": "stop"}
    assert second.job.usage == Usage(2, 2)
    assert second.job.served is not None
    assert (second.job.served.pool, second.job.served.accelerator) == ("gpu", "l4")
    assert second.job.served.batch_size == 2


async def test_where_nobody_can_tell_who_is_up_the_jobs_are_tried_again_and_lose_nothing() -> None:
    async def unknown(
        spec: ModelSpec, pool: Pool, affinity: str = "", *, wary: bool = False
    ) -> Pool:
        raise Unavailable("no table")

    world = World()
    [job] = await _submitted(world, "one")
    world.runner.place = unknown

    with pytest.raises(EngineUnavailable, match="no table"):
        await world.runner.run(a_batch(job.id), a_pool("gpu"))


@pytest.mark.parametrize("losses", [0, 1])
async def test_a_worker_is_chosen_with_care_for_what_was_lost_with_one(losses: int) -> None:
    asked = []

    async def place(spec: ModelSpec, pool: Pool, affinity: str = "", *, wary: bool = False) -> Pool:
        asked.append(wary)
        return pool

    world = World()
    (job,) = await _submitted(world, "a")
    world.store.jobs[job.id] = replace(job, losses=losses)
    world.runner.place = place

    await world.runner.run(a_batch(job.id), a_pool())

    assert asked == [losses > 0]


async def test_a_poisoned_item_fails_alone() -> None:
    world = World(
        engine=ScriptedEngine(
            lambda r: (
                InvalidInput("bad text")
                if r.input.prompt == "bad"
                else Completion("ok", "stop", Usage(1, 1))
            )
        )
    )
    good, bad, other = await _submitted(world, "good", "bad", "other")

    await world.runner.run(a_batch(good.id, bad.id, other.id), a_pool())

    assert world.states() == {
        good.id: JobState.COMPLETED,
        bad.id: JobState.FAILED,
        other.id: JobState.COMPLETED,
    }
    failure = (await world.job(bad.id)).failure
    assert failure is not None
    assert (failure.code, failure.message) == ("invalid_input", "bad text")


async def test_no_end_is_on_its_way_any_more_when_the_batch_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World()
    first, second = await _submitted(world, "first", "second")
    failed: list[JobId] = []

    async def settle(outcome: Outcome, owner: str, now: float) -> Job | None:
        while outcome.job_id == second.id and failed != [first.id]:
            await asyncio.sleep(0)
        await asyncio.sleep(0.01)
        failed.append(outcome.job_id)
        raise Unavailable("database is locked")

    monkeypatch.setattr(world.store, "settle", settle)

    with pytest.raises(EngineUnavailable, match="locked"):
        await world.runner.run(a_batch(first.id, second.id), a_pool())

    assert failed == [first.id, second.id]


async def test_a_batch_delivered_twice_runs_once() -> None:
    world = World()
    [job] = await _submitted(world, "hello")

    await world.runner.run(a_batch(job.id), a_pool())
    await world.runner.run(a_batch(job.id), a_pool())

    assert len(world.engine.calls) == 1
    assert len(world.telemetry.of("ended")) == 1


async def test_a_cancelled_job_never_reaches_the_engine() -> None:
    world = World()
    job, other = await _submitted(world, "hello", "world")
    await world.results.cancel(job.id, "default", lambda _: None)

    await world.runner.run(a_batch(job.id, other.id), a_pool())

    [(_, _, requests)] = world.engine.calls
    assert [request.id for request in requests] == [other.id]


async def test_a_job_past_its_deadline_expires_instead_of_running() -> None:
    world = World()
    job = await world.submit(timeout_s=10.0)
    world.clock.advance(11.0)

    await world.runner.run(a_batch(job.id), a_pool())

    assert (await world.job(job.id)).state is JobState.EXPIRED
    assert not world.engine.calls


async def test_the_engine_gets_no_more_time_than_the_job_and_the_lease_have() -> None:
    world = World()
    short = await world.submit(timeout_s=10.0)
    long = await world.submit(timeout_s=10_000.0)

    await world.runner.run(a_batch(short.id, long.id), a_pool())

    [(_, _, requests)] = world.engine.calls
    times = {request.id: request.timeout_s for request in requests}
    assert times[short.id] == pytest.approx(10.0)
    assert times[long.id] == pytest.approx(world.runner.lease_s - 5.0)


async def test_a_job_that_no_worker_took_waits_until_its_batch_is_tried_again() -> None:
    world = World(engine=ScriptedEngine(lambda _: EngineUnavailable("connection refused")))
    [job] = await _submitted(world, "hello")
    batch = a_batch(job.id)
    left: list[Batch] = []
    world.runner.items_left = lambda batch, _: left.append(batch)

    with pytest.raises(EngineUnavailable):
        await world.runner.run(batch, a_pool())

    again = await world.job(job.id)
    assert (again.state, again.started_at, again.losses) == (JobState.QUEUED, None, 0)
    assert again.resends == 0, "its message was answered"
    assert left == [], "the slot of a job that is tried again stays taken"


async def test_what_is_tried_again_takes_its_slots_again_and_no_others() -> None:
    world = World()
    jobs = await _submitted(world, "one", "two", "three")
    await world.results.cancel(jobs[0].id, "default", lambda _: None)
    world.runner.store = failing_before(world.store, settle=[Unavailable("disk is full")] * 2)
    batch = a_batch(*(job.id for job in jobs))
    begun: list[int] = []
    world.runner.items_begin = lambda _, items: begun.append(items)

    with pytest.raises(EngineUnavailable):
        await world.runner.run(batch, a_pool())
    await world.runner.run(batch, a_pool())

    assert begun == [2, 0], "they were answered: only that is written again"


def not_written(times: int) -> list[BaseException | None]:
    return [Unavailable("the disk is full")] * times


@pytest.mark.parametrize("where", ["settle", "put"])
async def test_an_answer_that_cannot_be_written_is_computed_once_however_long_that_takes(
    where: str,
) -> None:
    """Written to the records, or stored apart from them where it is large."""
    text = "x" * (INLINE_LIMIT_BYTES + 1)
    world = World(engine=ScriptedEngine(lambda _: Completion(text, "stop", Usage(3, 5))))
    job = await world.submit("hello")
    if where == "settle":
        world.runner.store = failing_before(world.store, settle=not_written(18))
    else:
        world.runner.blobs = failing_before(world.blobs, put=not_written(18))

    for _ in range(3):
        await world.work()
        assert (await world.job(job.id)).state is JobState.QUEUED
    world.clock.advance(60.0)
    await world.work()

    ended = await world.job(job.id)
    assert ended.state is JobState.COMPLETED
    assert ended.result is not None
    assert decode_result(await fetch(world.blobs, ended.result), ended.usage or Usage()) == (
        Completion(text, "stop", Usage(3, 5))
    )
    assert len(world.engine.calls) == 1
    assert world.runner.unwritten.take(job.id) is None


async def test_a_refusal_that_cannot_be_written_is_not_asked_for_again() -> None:
    world = World(engine=ScriptedEngine(lambda _: InvalidInput("too hot")))
    job = await world.submit("hello")
    world.runner.store = failing_before(world.store, settle=not_written(7))

    await world.work()
    await world.work()

    assert (await world.job(job.id)).failure == Failure("invalid_input", "too hot")
    assert len(world.engine.calls) == 1


async def test_an_answer_that_cannot_be_written_holds_up_no_other_of_its_batch() -> None:
    world = World()
    jobs = await _submitted(world, "one", "two")
    batch = a_batch(*(job.id for job in jobs))
    world.runner.store = failing_before(world.store, settle=not_written(1))
    with pytest.raises(EngineUnavailable):
        await world.runner.run(a_batch(jobs[0].id, id=batch.id), a_pool())

    world.runner.store = failing_before(world.store, settle=not_written(1))
    with pytest.raises(EngineUnavailable, match="full"):
        await world.runner.run(batch, a_pool())

    assert (await world.job(jobs[1].id)).state is JobState.COMPLETED
    await world.runner.run(batch, a_pool())
    assert (await world.job(jobs[0].id)).state is JobState.COMPLETED
    assert len(world.engine.calls) == 2


async def test_an_answer_that_is_written_after_its_deadline_is_not_kept_any_more() -> None:
    world = World()
    job = await world.submit("hello", timeout_s=30.0)
    batch = a_batch(job.id)
    world.runner.store = failing_before(world.store, settle=not_written(1))
    with pytest.raises(EngineUnavailable):
        await world.runner.run(batch, a_pool())
    world.clock.advance(31.0)

    await world.runner.run(batch, a_pool())

    assert (await world.job(job.id)).state is JobState.EXPIRED
    assert world.runner.unwritten.take(job.id) is None


async def test_the_same_batch_may_run_its_jobs_again() -> None:
    answers: list[Answer] = [EngineUnavailable("refused"), Completion("ok", "stop", Usage())]
    world = World(engine=ScriptedEngine(lambda _: answers.pop(0)))
    [job] = await _submitted(world, "hello")
    batch = a_batch(job.id)
    with pytest.raises(EngineUnavailable):
        await world.runner.run(batch, a_pool())

    await world.runner.run(batch, a_pool("cpu"))

    assert (await world.job(job.id)).state is JobState.COMPLETED


def lost_with(prompt: str) -> ScriptedEngine:
    """An engine whose worker is lost with that prompt, and answers all others."""

    def answer(request: InferenceRequest) -> Answer:
        if request.input.prompt == prompt:
            return EngineLost("the worker is gone")
        return Completion("x", "stop", Usage(1, 1))

    return ScriptedEngine(answer)


async def test_what_finished_before_a_loss_stays_finished() -> None:
    world = World(engine=lost_with("second"))
    first, second = await _submitted(world, "first", "second")

    with pytest.raises(EngineLost):
        await world.runner.run(a_batch(first.id, second.id), a_pool())

    assert (await world.job(first.id)).state is JobState.COMPLETED
    assert (await world.job(second.id)).state is JobState.RUNNING


async def test_a_loss_is_told_though_the_speed_of_what_finished_cannot_be_written() -> None:
    """Else the batch would be tried again as it is, and the loss be held against nobody."""
    world = World(engine=lost_with("two"))
    world.runner.registry = failing_before(world.registry, record_service=[Unavailable("no")])
    jobs = await _submitted(world, "one", "two")

    with pytest.raises(EngineLost):
        await world.runner.run(a_batch(*(job.id for job in jobs)), a_pool("gpu"))

    assert list(world.states().values()) == [JobState.COMPLETED, JobState.RUNNING]


async def test_a_loss_is_told_though_an_end_cannot_be_written_which_costs_its_job_nothing() -> None:
    world = World(engine=lost_with("two"))
    jobs = await _submitted(world, "one", "two")
    world.runner.store = failing_before(world.store, settle=not_written(1))
    batch = a_batch(*(job.id for job in jobs))

    with pytest.raises(EngineLost) as raised:
        await world.runner.run(batch, a_pool("gpu"))
    failure = Failure(raised.value.code, raised.value.message)
    await world.give_back(batch.id, batch.job_ids, failure, lost=True)

    answered, suspect = [await world.job(job.id) for job in jobs]
    assert (answered.state, answered.losses) == (JobState.QUEUED, 0)
    assert (suspect.state, suspect.losses) == (JobState.QUEUED, 1)
    await world.work()
    assert (await world.job(answered.id)).state is JobState.COMPLETED
    asked = [request.id for _, _, requests in world.engine.calls for request in requests]
    assert asked.count(answered.id) == 1


async def test_a_timeout_at_the_deadline_is_an_expiry_and_before_it_a_failure() -> None:
    world = World(engine=ScriptedEngine(lambda _: EngineTimeout("too slow")))
    short = await world.submit(timeout_s=10.0)
    long = await world.submit(timeout_s=10_000.0)
    world.clock.advance(5.0)
    world.runner.lease_s = 5.0
    world.engine = world.runner.engine = _Slow(world)

    await world.runner.run(a_batch(short.id, long.id), a_pool())

    assert (await world.job(short.id)).state is JobState.EXPIRED
    assert (await world.job(long.id)).state is JobState.FAILED


async def test_a_timeout_is_an_expiry_also_where_the_engines_clock_is_ahead() -> None:
    world = World(engine=ScriptedEngine(lambda _: EngineTimeout("too slow")))
    job = await world.submit(timeout_s=10.0)
    world.clock.advance(9.999)

    await world.runner.run(a_batch(job.id), a_pool())

    assert (await world.job(job.id)).state is JobState.EXPIRED


class _Slow:
    """Lets six seconds pass, then times every request out."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Completion | EngineError], None]:
        self._world.clock.advance(6.0)
        for request in requests:
            yield request.id, EngineTimeout("too slow")


async def test_a_late_runner_cannot_overwrite_the_winner() -> None:
    world = World()
    [job] = await _submitted(world, "hello")
    loser = Lease("slow-batch", world.clock() + 1.0)
    await world.store.claim([job.id], loser, world.clock())
    world.clock.advance(2.0)
    await world.runner.run(a_batch(job.id), a_pool())
    winner = await world.results.get(job.id, "default")

    late = await world.runner.store.settle(_outcome(job.id, "late"), loser.owner, world.clock())

    assert late is None
    assert (await world.results.get(job.id, "default")).result == winner.result
    assert (await world.job(job.id)).losses == 1


def _outcome(job_id: JobId, text: str) -> Outcome:
    return Outcome(job_id, JobState.COMPLETED, Payload(inline=json.dumps({"text": text})))


async def test_aborting_a_generation_stops_its_stream_and_spares_the_batch() -> None:
    world = World()
    engine = _Hanging()
    world.runner.engine = engine
    stuck, other = await _submitted(world, "stuck", "other", model=CHAT)
    batch = a_batch(stuck.id, other.id, model=CHAT)

    running = asyncio.create_task(world.runner.run(batch, a_pool()))
    await engine.started.wait()
    await world.results.cancel(stuck.id, "default", world.runner.abort)
    await running

    assert engine.closed == ["stuck"]
    assert (await world.job(stuck.id)).state is JobState.CANCELLED
    assert (await world.job(other.id)).state is JobState.COMPLETED


class _Hanging:
    """Never answers the prompt `stuck`; notes when its stream is closed."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.closed: list[str] = []

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Completion | EngineError], None]:
        [request] = requests
        if request.input.prompt == "stuck":
            self.started.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.closed.append("stuck")
        yield request.id, Completion("ok", "stop", Usage())


async def test_measured_speed_is_recorded() -> None:
    world = World()
    jobs = await _submitted(world, "one", "two")

    await world.runner.run(a_batch(*(job.id for job in jobs)), a_pool())

    assert (await world.registry.service_rate("echo", world.clock())).items == 2


async def test_speed_is_measured_in_items_of_which_a_job_may_have_several() -> None:
    world = World()
    [job] = await _submitted(world, "one", model=CHAT)
    payload = Payload(inline=encode_input(ModelInput("one", samples=3)))
    world.store.jobs[job.id] = replace(job, payload=payload, items=3)

    await world.runner.run(a_batch(job.id, model=CHAT), a_pool())

    assert (await world.registry.service_rate(CHAT, world.clock())).items == 3


async def test_samples_beyond_the_slots_take_turns_and_their_wait_is_no_slot_time() -> None:
    """Two seconds for sixteen on eight slots are one for each."""
    world = World()

    def script(request: InferenceRequest) -> Answer:
        world.clock.advance(2.0)
        return echoed(request)

    world.runner.engine = ScriptedEngine(script)
    [job] = await _submitted(world, "one", model=CHAT)
    payload = Payload(inline=encode_input(ModelInput("one", samples=16)))
    world.store.jobs[job.id] = replace(job, payload=payload, items=16)

    await world.runner.run(a_batch(job.id, model=CHAT), a_pool())

    rate = await world.registry.service_rate(CHAT, world.clock())
    assert (rate.items, rate.seconds_per_item) == (16, pytest.approx(1.0))


async def test_a_lost_input_fails_its_job_and_says_so() -> None:
    world = World()
    job = await world.submit("x" * 300_000)
    world.blobs.blobs.clear()

    await world.runner.run(a_batch(job.id), a_pool())

    failure = (await world.job(job.id)).failure
    assert failure is not None
    assert failure.code == "input_lost"


async def test_a_large_result_travels_by_claim_check() -> None:
    text = "long " * 60_000
    world = World(engine=ScriptedEngine(lambda _: Completion(text, "length", Usage(1, 60_000))))
    [job] = await _submitted(world, "hello")

    await world.runner.run(a_batch(job.id), a_pool())

    view = await world.results.get(job.id, "default")
    assert view.job.result is not None
    assert view.job.result.inline is None
    assert view.result == {"text": text, "finish_reason": "length"}


async def test_messages_reach_the_engine_as_messages() -> None:
    world = World()
    turns = (ChatMessage("system", "be brief"), ChatMessage("user", "hi"))
    job = await world.submit(model=CHAT, input=ModelInput(messages=turns))

    await world.runner.run(a_batch(job.id, model=CHAT), a_pool())

    [(_, _, [request])] = world.engine.calls
    assert request.input.messages == turns
    assert request.input.prompt is None


async def test_the_inputs_of_a_batch_are_fetched_and_its_results_stored_side_by_side() -> None:
    world = World(blobs=MeetingBlobStore(gets=3))
    jobs = await _submitted(world, "one", "two", "three")
    assert {job.payload.inline for job in jobs} == {None}
    world.blobs.puts_meet(3)

    await world.runner.run(a_batch(*(job.id for job in jobs)), a_pool())

    assert {(await world.job(job.id)).state for job in jobs} == {JobState.COMPLETED}


async def test_an_input_that_is_lost_is_no_harm_to_its_neighbours() -> None:
    world = World(blobs=MemoryBlobStore(inline_bytes=4))
    lost, kept = await _submitted(world, "one", "two")
    del world.blobs.blobs[lost.payload.blob_key]

    await world.runner.run(a_batch(lost.id, kept.id), a_pool())

    assert (await world.job(lost.id)).state is JobState.FAILED
    assert (await world.job(kept.id)).state is JobState.COMPLETED
