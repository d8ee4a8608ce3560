"""Submitting: what is accepted is recorded and queued, what is refused leaves no trace."""

from __future__ import annotations

import pytest

from synapse.application.intake import SubmitJob
from synapse.application.payloads import INLINE_LIMIT_BYTES, decode_input, fetch
from synapse.application.ping import BEFORE_ALL_WORK
from synapse.application.submit import SubmitLimits
from synapse.domain.errors import (
    IdempotencyConflict,
    InvalidRequest,
    PayloadTooLarge,
    SynapseError,
    Unavailable,
    UnknownModel,
)
from synapse.domain.inference import ChatMessage, ModelInput
from synapse.domain.job import JobState, Priority
from synapse.domain.model import ServiceSample
from tests.factories import a_pool
from tests.fakes import MeetingBlobStore, MemoryRegistry
from tests.faults import failing_before
from tests.unit.application.world import CHAT, World


async def test_an_accepted_job_is_recorded_before_its_message_is_sent() -> None:
    world = World()

    job = await world.submit("The future of AI is", priority=Priority.HIGH)

    assert (await world.job(job.id)).state is JobState.QUEUED
    [message] = world.queue.messages
    assert message.job_id == job.id
    assert message.priority is Priority.HIGH
    assert decode_input(await fetch(world.blobs, job.payload)).prompt == "The future of AI is"


async def test_a_message_never_carries_the_prompt() -> None:
    world = World()

    await world.submit("SECRET-PROMPT")

    assert "SECRET-PROMPT" not in repr(world.queue.messages)


async def test_a_large_prompt_travels_by_claim_check() -> None:
    world = World()

    job = await world.submit("ä" * INLINE_LIMIT_BYTES)

    assert job.payload.inline is None
    assert decode_input(await fetch(world.blobs, job.payload)).prompt == "ä" * INLINE_LIMIT_BYTES


@pytest.mark.parametrize(
    ("command", "error", "param"),
    [
        (SubmitJob("gpt-9", ModelInput("hi")), UnknownModel, "model"),
        (SubmitJob("echo", ModelInput("x" * (1024 * 1024 + 1))), PayloadTooLarge, "prompt"),
        (
            SubmitJob("echo", ModelInput(messages=(ChatMessage("user", "hi"),))),
            InvalidRequest,
            "messages",
        ),
        (
            SubmitJob("echo", ModelInput("hi", parameters={"max_tokens": 5000})),
            InvalidRequest,
            "parameters.max_tokens",
        ),
        (SubmitJob("echo", ModelInput("hi"), timeout_s=0.0), InvalidRequest, "timeout"),
        (SubmitJob("echo", ModelInput("hi"), timeout_s=1e9), InvalidRequest, "timeout"),
    ],
)
async def test_a_bad_request_names_its_field_and_enqueues_nothing(
    command: SubmitJob, error: type[SynapseError], param: str
) -> None:
    world = World()

    with pytest.raises(error) as caught:
        await world.submitter.submit(command)

    assert caught.value.param == param
    assert not world.store.jobs
    assert not world.queue.messages
    assert not world.blobs.blobs


async def test_an_unknown_model_is_told_which_there_are() -> None:
    with pytest.raises(UnknownModel, match=f"echo, {CHAT}"):
        await World().submitter.submit(SubmitJob("gpt-9", ModelInput("hi")))


async def test_a_model_that_no_pool_serves_is_refused() -> None:
    models = await World().registry.models()
    world = World(registry=MemoryRegistry(models, [a_pool(models=frozenset({CHAT}))]))

    with pytest.raises(UnknownModel, match=f"no pool serves it; choose one of: {CHAT} "):
        await world.submitter.submit(SubmitJob("echo", ModelInput("hi")))

    assert not world.store.jobs


async def test_one_bad_request_of_many_spares_the_others() -> None:
    world = World()
    commands = [SubmitJob(model, ModelInput("hi")) for model in ("echo", "gpt-9", "echo")]

    first, second, third = await world.submitter.submit_many(commands)

    assert isinstance(second, UnknownModel)
    assert not isinstance(first, SynapseError)
    assert not isinstance(third, SynapseError)
    assert len(world.queue.messages) == 2


async def test_a_repeated_key_gets_the_first_job_and_never_runs_twice() -> None:
    world = World()

    first = await world.submit("hi", idempotency_key="k")
    await world.work()
    second = await world.submit("hi", idempotency_key="k")

    assert second.id == first.id
    assert second.state is JobState.COMPLETED
    assert not world.queue.messages
    assert len(world.telemetry.of("submitted")) == 1


async def test_a_repeated_key_with_another_body_is_a_conflict() -> None:
    world = World()
    await world.submit("hi", idempotency_key="k")

    with pytest.raises(IdempotencyConflict):
        await world.submit("bye", idempotency_key="k")


async def test_a_job_that_cannot_be_queued_is_refused_and_its_record_closed() -> None:
    world = World()
    world.queue = failing_before(world.queue, send=[Unavailable("the queue is away")])

    with pytest.raises(Unavailable):
        await world.submit()

    [(job_id, state)] = world.states().items()
    assert state is JobState.FAILED
    assert [job.id for (job,) in world.telemetry.of("ended")] == [job_id]


async def test_a_keyed_job_that_could_not_be_queued_is_queued_by_the_repeat() -> None:
    world = World()
    world.queue = failing_before(world.queue, send=[Unavailable("the queue is away")])
    with pytest.raises(Unavailable):
        await world.submit(idempotency_key="k")

    job = await world.submit(idempotency_key="k")

    assert job.state is JobState.QUEUED
    assert [message.job_id for message in world.queue.messages] == [job.id]


async def test_the_position_counts_those_ahead_and_the_wait_comes_from_measured_speed() -> None:
    world = World()
    await world.registry.record_service(
        ServiceSample("echo", "cpu", items=10, busy_s=20.0), world.clock()
    )
    await world.submit(priority=Priority.LOW)
    await world.submit(priority=Priority.HIGH)
    command = SubmitJob("echo", ModelInput("hi"), Priority.NORMAL)

    accepted = await world.submitter.submit(command)

    assert accepted.queue_position == 2  # behind the high one, before the low one
    assert accepted.estimated_wait_s == pytest.approx(2.0 / 8)  # one job ahead, 2 s each, 8 slots


async def test_a_job_ahead_counts_with_all_its_samples_in_the_wait() -> None:
    world = World()
    measured = ServiceSample(CHAT, "cpu", items=10, busy_s=20.0)
    await world.registry.record_service(measured, world.clock())
    await world.submitter.submit(SubmitJob(CHAT, ModelInput("hi", samples=5)))

    accepted = await world.submitter.submit(SubmitJob(CHAT, ModelInput("hi", samples=3)))

    assert accepted.queue_position == 2
    assert accepted.estimated_wait_s == pytest.approx(5 * 2.0 / 8)


async def test_where_the_queue_tells_no_items_each_job_ahead_counts_as_one() -> None:
    world = World()
    measured = ServiceSample(CHAT, "cpu", items=10, busy_s=20.0)
    await world.registry.record_service(measured, world.clock())
    world.queue.items = world.queue.depth
    for _ in range(2):
        await world.submitter.submit(SubmitJob(CHAT, ModelInput("hi")))

    accepted = await world.submitter.submit(SubmitJob(CHAT, ModelInput("hi", samples=8)))

    assert accepted.estimated_wait_s == pytest.approx(2 * 2.0 / 8)


async def test_the_wait_is_unknown_before_anything_was_measured() -> None:
    accepted = await World().submitter.submit(SubmitJob("echo", ModelInput("hi")))

    assert accepted.queue_position == 1
    assert accepted.estimated_wait_s is None


@pytest.mark.parametrize(("model", "wait_s"), [("echo", 0.02 / 8), (CHAT, None)])
async def test_a_ping_tells_how_long_brief_items_wait_but_not_who_waits_for_generations(
    model: str, wait_s: float | None
) -> None:
    world = World()
    ping = ServiceSample(model, "cpu", items=1, busy_s=0.02)
    await world.registry.record_service(ping, BEFORE_ALL_WORK)

    first = await world.submitter.submit(SubmitJob(model, ModelInput("hi")))
    second = await world.submitter.submit(SubmitJob(model, ModelInput("hi")))

    assert (first.queue_position, first.estimated_wait_s) == (1, 0.0)
    assert (second.queue_position, second.estimated_wait_s) == (2, wait_s)


async def test_an_unknown_wait_is_no_refusal() -> None:
    world = World()
    world.queue = failing_before(world.queue, depth=[Unavailable("no attributes")])

    accepted = await world.submitter.submit(SubmitJob("echo", ModelInput("hi")))

    assert accepted.estimated_wait_s is None
    assert len(world.queue.messages) == 1


async def test_the_deadline_is_the_timeout_from_now() -> None:
    world = World()

    given = await world.submit(timeout_s=12.0)
    default = await world.submit()

    assert given.deadline_at == world.clock() + 12.0
    assert default.deadline_at == world.clock() + SubmitLimits().default_timeout_s


async def test_the_inputs_of_jobs_sent_together_are_stored_side_by_side() -> None:
    world = World(blobs=MeetingBlobStore(puts=3))
    commands = [SubmitJob("echo", ModelInput(f"prompt {number}")) for number in range(3)]

    accepted = await world.submitter.submit_many(commands)

    assert not any(isinstance(each, SynapseError) for each in accepted)
