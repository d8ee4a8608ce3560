"""The direct lane: who is let in, what comes whole, what is measured."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from synapse.domain.errors import (
    EngineError,
    EngineLost,
    EngineTimeout,
    EngineUnavailable,
    InvalidInput,
    InvalidRequest,
    Overloaded,
    PayloadTooLarge,
    Unavailable,
    UnknownModel,
)
from synapse.domain.estimate import ServiceRate
from synapse.domain.inference import ChatMessage, Completion, Delta, Embeddings, ModelInput
from synapse.domain.job import SlaTier, Usage
from synapse.domain.model import ServiceSample, Task
from synapse.domain.pace import MIN_SAMPLES
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest
from tests.factories import a_chat_model, a_model, a_pool
from tests.fakes import MemoryRegistry, ScriptedEngine
from tests.faults import failing_before
from tests.unit.application.stepping import (
    SLOTS,
    Script,
    Step,
    SteppingEngine,
    a_request,
    nothing_is_left,
    read,
    stepping,
    text_of,
    told,
    words,
)
from tests.unit.application.world import CHAT, World


def alone(script: Script) -> tuple[World, SteppingEngine]:
    """A world of one pool."""
    engine = SteppingEngine(script)
    registry = MemoryRegistry([a_chat_model(CHAT)], [a_pool("gpu")])
    return World(engine=engine, registry=registry), engine


async def test_an_answer_comes_whole_with_who_gave_it() -> None:
    world = World()

    answer = await world.direct.run(a_request(input=ModelInput("a b c")))

    assert answer.result == Completion("a b c", "stop", Usage(3, 3))
    assert (answer.spec.name, answer.pool.name) == (CHAT, "gpu")
    assert answer.timings.total_s >= answer.timings.held_s >= 0
    assert nothing_is_left(world)


async def test_vectors_come_by_the_same_way() -> None:
    vectors = Embeddings((b"\x00\x00\x80?",), Usage(1, 0))
    registry = MemoryRegistry([a_model("minilm", task=Task.EMBED)], [a_pool()])
    world = World(engine=ScriptedEngine({"r-1": vectors}), registry=registry)
    value = ModelInput(inputs=("hello",))

    answer = await world.direct.run(a_request(model="minilm", input=value))

    assert answer.result == vectors
    assert (told(world).outcome, told(world).is_success) == ("stop", True)


async def test_a_request_leaves_no_record_and_no_message() -> None:
    world = World()

    await world.direct.run(a_request())

    assert not world.store.jobs
    assert not world.queue.messages
    assert not world.blobs.blobs


@pytest.mark.parametrize(
    ("changes", "error", "param"),
    [
        ({"model": "gpt-9"}, UnknownModel, "model"),
        ({"timeout_s": 0.0}, InvalidRequest, "timeout"),
        ({"input": ModelInput("x" * (1024 * 1024 + 1))}, PayloadTooLarge, "prompt"),
        (
            {"input": ModelInput("x", parameters={"max_tokens": 10**6})},
            InvalidRequest,
            "max_tokens",
        ),
        (
            {"model": "echo", "input": ModelInput(messages=(ChatMessage("user", "hi"),))},
            InvalidRequest,
            "messages",
        ),
    ],
)
async def test_what_is_at_fault_is_refused_before_anything_is_sent(
    changes: dict[str, Any], error: type[Exception], param: str
) -> None:
    world = World()

    with pytest.raises(error) as caught:
        await world.direct.begin(a_request(**changes))

    assert getattr(caught.value, "param", None) == param
    assert world.engine.calls == []
    assert nothing_is_left(world)


async def test_a_model_without_a_pool_is_unavailable() -> None:
    world = World(registry=MemoryRegistry([a_chat_model(CHAT)], []))

    with pytest.raises(Unavailable, match="no pool"):
        await world.direct.begin(a_request())


@pytest.mark.parametrize("error", [InvalidInput("too long"), EngineLost("gone"), EngineTimeout("")])
async def test_an_error_of_the_engine_is_the_callers_and_frees_the_slot(error: EngineError) -> None:
    world = World(engine=ScriptedEngine({"r-1": error}))

    with pytest.raises(type(error)):
        await world.direct.run(a_request())

    assert nothing_is_left(world)
    assert told(world).outcome == error.code
    assert not told(world).is_success


async def measured(world: World, seconds_per_item: float) -> None:
    sample = ServiceSample(CHAT, "gpu", 10, 10 * seconds_per_item)
    await world.registry.record_service(sample, world.clock())


async def test_what_cannot_be_answered_in_time_is_refused_at_once() -> None:
    world, engine = alone(lambda pool, request: words("a"))
    await measured(world, 10.0)
    world.slots.occupy(CHAT, "gpu", 2 * SLOTS)

    with pytest.raises(Overloaded) as caught:
        await world.direct.begin(a_request(timeout_s=15.0))

    assert caught.value.code == "engine_overloaded"
    # 16 are under way and 12 may be with the newcomer: 5 end within 6.25 s, 8 slots of 10 s each.
    assert caught.value.retry_after_s == 7
    assert engine.started == []
    assert told(world).outcome == "refused"
    await (await world.direct.begin(a_request(timeout_s=60.0))).aclose()


def one_full_one_at_zero(startup_s: float) -> tuple[World, SteppingEngine]:
    """A world whose only pool with a worker has as many as it answers in 15 s, and more."""
    engine = SteppingEngine(lambda pool, request: words("a"))
    cold = a_pool("cpu", endpoint="", min_workers=0, max_workers=4, startup_s=startup_s)
    registry = MemoryRegistry([a_chat_model(CHAT)], [a_pool("gpu"), cold])
    world = World(engine=engine, registry=registry)
    world.slots.occupy(CHAT, "gpu", 4 * SLOTS)
    return world, engine


async def test_a_pool_at_zero_lets_nobody_in_whom_it_cannot_answer_in_time() -> None:
    world, _ = one_full_one_at_zero(startup_s=20.0)
    await measured(world, 10.0)

    # Nobody would be there, and it would go to the full one after all.
    with pytest.raises(Overloaded):
        await world.direct.begin(a_request(timeout_s=15.0))
    with pytest.raises(Overloaded):
        await world.direct.begin(a_request(timeout_s=60.0, tier=SlaTier.BRONZE))

    assert world.slots.in_flight(CHAT, "cpu") == 0


async def test_who_is_held_for_a_worker_enters_a_full_pool_only_when_it_has_room() -> None:
    world, engine = one_full_one_at_zero(startup_s=5.0)
    await measured(world, 10.0)

    async with await world.direct.begin(a_request(timeout_s=15.0)) as generation:
        reading = asyncio.create_task(read(generation))
        while len(world.slept_s) < 3:
            await asyncio.sleep(0)
        held = (world.slots.in_flight(CHAT, "cpu"), len(engine.started))
        world.slots.free(CHAT, "gpu", 4 * SLOTS)
        await reading

    assert held == (1, 0)
    assert [pool for pool, _ in engine.started] == ["gpu"]
    assert nothing_is_left(world)


async def test_company_that_would_make_an_answer_late_is_learned_from_the_last_ones() -> None:
    world, _ = alone(lambda pool, request: words("a"))
    lane = world.direct
    pacemaker = world.seats.pacemakers[CHAT, "gpu"]
    for crowd in range(1, 9):
        pacemaker.ended(world.clock(), crowd, 1.0 + 2.0 * crowd)
    world.slots.occupy(CHAT, "gpu", 3)

    # Among four in all an answer takes 9 s, though half of the slots are free.
    with pytest.raises(Overloaded) as caught:
        await lane.begin(a_request(timeout_s=8.0))
    await (await lane.begin(a_request(timeout_s=10.0))).aclose()
    await (await lane.begin(a_request(timeout_s=8.0, stream_s=600.0))).aclose()
    assert caught.value.retry_after_s >= 1


async def test_each_answer_teaches_the_pace_of_its_model() -> None:
    world, _ = stepping(lambda pool, request: words("a"))
    lane = world.direct
    for _ in range(MIN_SAMPLES):
        async with await lane.begin(a_request()) as generation:
            await read(generation)

    pace = world.seats.pacemakers[CHAT, "gpu"].pace(world.clock())

    assert pace is not None
    assert 0 <= pace.alone_s < 1


async def test_flex_takes_a_free_slot_and_waits_for_none() -> None:
    world, _ = alone(lambda pool, request: words("a"))
    world.slots.occupy(CHAT, "gpu", SLOTS - 1)

    async with await world.direct.begin(a_request(tier=SlaTier.BRONZE)):
        with pytest.raises(Overloaded):
            await world.direct.begin(a_request(tier=SlaTier.BRONZE))
        async with await world.direct.begin(a_request(tier=SlaTier.SILVER)):
            pass


async def test_flex_leaves_the_slots_that_better_tiers_had_lately() -> None:
    world, _ = alone(lambda pool, request: words("a"))
    for _ in range(2):
        await (await world.direct.begin(a_request(tier=SlaTier.GOLD))).aclose()
    gold = await world.direct.begin(a_request(tier=SlaTier.GOLD))

    flex = [await world.direct.begin(a_request(tier=SlaTier.BRONZE)) for _ in range(SLOTS - 2)]

    with pytest.raises(Overloaded):
        await world.direct.begin(a_request(tier=SlaTier.BRONZE))
    for each in (gold, *flex):
        await each.aclose()


async def test_who_finds_no_room_in_the_first_pool_is_let_into_the_next() -> None:
    world, engine = stepping(lambda pool, request: words("a"))
    world.slots.occupy(CHAT, "gpu", SLOTS)

    async with await world.direct.begin(a_request(tier=SlaTier.BRONZE)) as generation:
        assert (world.slots.in_flight(CHAT, "gpu"), world.slots.in_flight(CHAT, "cpu")) == (8, 1)
        await read(generation)

    assert [pool for pool, _ in engine.started] == ["cpu"]


async def test_a_request_is_counted_in_the_pool_in_which_it_is_tried() -> None:
    counts = []

    def script(pool: Pool, request: InferenceRequest) -> Sequence[Step]:
        counts.append((world.slots.in_flight(CHAT, "gpu"), world.slots.in_flight(CHAT, "cpu")))
        return [EngineUnavailable("gone")] if pool.name == "gpu" else words("a")

    world, _ = stepping(script)

    async with await world.direct.begin(a_request()) as generation:
        await read(generation)

    assert counts == [(1, 0), (0, 1)]
    assert nothing_is_left(world)


async def test_flex_moves_to_no_pool_that_is_kept_for_better_tiers() -> None:
    world, engine = stepping(
        lambda pool, request: [EngineUnavailable("gone")] if pool.name == "gpu" else words("a")
    )
    world.slots.occupy(CHAT, "cpu", SLOTS, SlaTier.GOLD)

    async with await world.direct.begin(
        a_request(tier=SlaTier.BRONZE, timeout_s=0.03)
    ) as generation:
        with pytest.raises(Unavailable):
            await read(generation)

    assert {pool for pool, _ in engine.started} == {"gpu"}


async def test_each_sample_counts() -> None:
    world, _ = alone(lambda pool, request: words("a"))

    async with await world.direct.begin(a_request(input=ModelInput("x", samples=SLOTS))):
        with pytest.raises(Overloaded):
            await world.direct.begin(a_request(tier=SlaTier.BRONZE))


async def test_the_tiers_are_the_engines_priorities() -> None:
    world, engine = stepping(lambda pool, request: words("a"))

    for tier in (SlaTier.GOLD, SlaTier.SILVER, SlaTier.BRONZE):
        async with await world.direct.begin(a_request(tier=tier)) as generation:
            await read(generation)

    assert [request.priority for request in engine.requests] == [-3, 0, 3]


async def test_what_cannot_be_counted_is_not_begun() -> None:
    world, engine = stepping(lambda pool, request: words("a"))
    world.slots = failing_before(world.slots, enter=[Unavailable("no table")])

    with pytest.raises(Unavailable, match="no table"):
        await world.direct.begin(a_request())

    assert engine.started == []


async def test_an_answer_feeds_the_measured_speed_of_its_model() -> None:
    world, _ = stepping(lambda pool, request: words("a", "b"))

    async with await world.direct.begin(a_request(input=ModelInput("x", samples=2))) as generation:
        await read(generation)

    rate = await world.registry.service_rate(CHAT, world.clock())
    assert rate.items == 2
    assert 0 < rate.busy_s <= 2 * generation.timings.total_s


async def test_the_wait_behind_others_is_no_part_of_the_measured_speed() -> None:
    world, _ = stepping(lambda pool, request: words("a"))
    world.slots.occupy(CHAT, "gpu", 3 * SLOTS - 1)

    async with await world.direct.begin(a_request()) as generation:
        await asyncio.sleep(0.01)
        await read(generation)

    rate = await world.registry.service_rate(CHAT, world.clock())
    timings = generation.timings
    assert rate.busy_s == pytest.approx((timings.total_s - timings.held_s) / 3)


async def test_what_was_not_answered_is_not_measured() -> None:
    world, _ = stepping(lambda pool, request: [Delta("a", 3, 1), EngineLost("gone")])

    async with await world.direct.begin(a_request()) as generation:
        with pytest.raises(EngineLost):
            await read(generation)

    assert await world.registry.service_rate(CHAT, world.clock()) == ServiceRate(0, 0.0)


async def test_a_speed_that_cannot_be_recorded_spoils_no_answer() -> None:
    world, _ = stepping(lambda pool, request: words("a"))
    world.registry = failing_before(world.registry, record_service=[Unavailable("no table")])

    async with await world.direct.begin(a_request()) as generation:
        assert text_of(await read(generation)) == "a"

    assert nothing_is_left(world)


async def test_the_operator_is_told_of_the_times_and_tokens_of_a_stream() -> None:
    world, _ = stepping(lambda pool, request: words("a", "b", "c"))

    async with await world.direct.begin(a_request()) as generation:
        await read(generation)

    answered = told(world)
    assert (answered.model, answered.pool, answered.outcome) == (CHAT, "gpu", "stop")
    assert answered.is_success
    assert answered.usage == Usage(3, 3, 2)
    timings = answered.timings
    assert timings.first_token_s is not None
    assert 0 <= timings.held_s <= timings.first_token_s <= timings.total_s
    per_token_s = timings.per_token_s(3)
    assert per_token_s == pytest.approx((timings.total_s - timings.first_token_s) / 2)


async def test_a_whole_answer_has_no_first_token() -> None:
    world = World(engine=ScriptedEngine(lambda _: Completion("a b", "length", Usage(2, 2))))

    await world.direct.run(a_request())

    answered = told(world)
    assert answered.outcome == "length"
    assert answered.timings.first_token_s is None
    assert answered.timings.per_token_s(2) is None
