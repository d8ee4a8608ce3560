"""A generation: read as it is written, by a reader or worker that may go away at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from synapse.domain.access import Principal
from synapse.domain.errors import (
    EngineError,
    EngineLost,
    EngineUnavailable,
    InvalidInput,
    InvalidRequest,
)
from synapse.domain.inference import Delta, ModelInput
from synapse.domain.job import Usage
from synapse.domain.model import Task
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest
from tests.factories import a_model, a_pool
from tests.fakes import MemoryRegistry
from tests.unit.application.stepping import (
    Step,
    a_request,
    nothing_is_left,
    read,
    settle,
    stepping,
    told,
    words,
)
from tests.unit.application.world import CHAT, World

CALLER = Principal("acme", "key-1")


async def test_deltas_come_as_they_are_written() -> None:
    gate = asyncio.Event()
    world, _ = stepping(lambda pool, request: [Delta("Hel", 3, 1), gate, Delta("lo", 3, 1, "stop")])

    async with await world.direct.begin(a_request()) as generation:
        deltas = generation.deltas()
        assert (await anext(deltas)).delta.text == "Hel"
        gate.set()
        assert (await anext(deltas)).delta == Delta("lo", 3, 1, "stop")
        assert [each async for each in deltas] == []

    assert nothing_is_left(world)


async def test_samples_are_written_side_by_side_and_come_interleaved() -> None:
    gates = {"r-1-0": asyncio.Event(), "r-1-1": asyncio.Event()}
    world, engine = stepping(
        lambda pool, request: [*words("a", "b")[:1], gates[request.id], *words("c")]
    )
    value = ModelInput("x", samples=2, parameters={"seed": 7})

    async with await world.direct.begin(a_request(input=value)) as generation:
        assert world.slots.in_flight(CHAT) == 2
        deltas = generation.deltas()
        assert {(await anext(deltas)).index for _ in range(2)} == {0, 1}
        gates["r-1-1"].set()
        assert [(await anext(deltas)).index for _ in range(2)] == [1, 1]
        gates["r-1-0"].set()
        assert [each.index async for each in deltas] == [0, 0]

    assert [request.input.parameters["seed"] for request in engine.requests] == [7, 8]
    assert [request.input.samples for request in engine.requests] == [1, 1]
    assert generation.usage == Usage(3, 4, 2)
    assert nothing_is_left(world)


async def test_a_model_that_cannot_stream_gives_its_answer_in_one_piece() -> None:
    world = World()

    async with await world.direct.begin(
        a_request(model="echo", input=ModelInput("a b", samples=2))
    ) as generation:
        deltas = await read(generation)

    assert sorted((each.index, each.delta) for each in deltas if each.delta.text) == [
        (index, Delta("a b", 2, 2, "stop")) for index in range(2)
    ]


async def test_vectors_cannot_be_streamed() -> None:
    registry = MemoryRegistry([a_model("minilm", task=Task.EMBED)], [a_pool()])
    world = World(registry=registry)
    request = a_request(model="minilm", input=ModelInput(inputs=("x",)))

    async with await world.direct.begin(request) as generation:
        with pytest.raises(InvalidRequest):
            await read(generation)

    assert nothing_is_left(world)


async def test_a_worker_that_dies_in_the_middle_ends_the_stream_with_its_error() -> None:
    world, engine = stepping(
        lambda pool, request: [Delta("Hel", 3, 1), EngineLost("the worker went down")]
    )

    async with await world.direct.begin(a_request()) as generation:
        deltas = generation.deltas()
        assert (await anext(deltas)).delta.text == "Hel"
        with pytest.raises(EngineLost):
            await anext(deltas)

    assert engine.started == [("gpu", "r-1-0")]
    assert nothing_is_left(world)
    assert told(world).outcome == "worker_lost"


async def test_an_engine_that_goes_away_after_its_first_word_is_not_asked_again() -> None:
    world, engine = stepping(lambda pool, request: [Delta("Hel", 3, 1), EngineUnavailable("gone")])

    async with await world.direct.begin(a_request()) as generation:
        with pytest.raises(EngineUnavailable):
            await read(generation)

    assert engine.started == [("gpu", "r-1-0")]


async def test_an_error_of_one_sample_cancels_the_others_at_the_engine() -> None:
    world, engine = stepping(
        lambda pool, request: (
            [InvalidInput("no")] if request.id == "r-1-1" else [Delta("a", 3, 1), asyncio.Event()]
        )
    )

    async with await world.direct.begin(a_request(input=ModelInput("x", samples=3))) as generation:
        with pytest.raises(InvalidInput):
            await read(generation)

    assert engine.running == 0
    assert nothing_is_left(world)


async def test_an_unforeseen_error_is_told_as_one_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(pool: Pool, request: InferenceRequest) -> Sequence[Step]:
        raise RuntimeError("SECRET")

    world, _ = stepping(broken)

    async with await world.direct.begin(a_request()) as generation:
        with pytest.raises(EngineError, match="for a reason of ours") as caught:
            await read(generation)

    assert "SECRET" not in caught.value.message
    assert "a generation broke off" in caplog.text
    assert nothing_is_left(world)


async def test_a_reader_who_stops_early_cancels_the_generation() -> None:
    world, engine = stepping(lambda pool, request: [*words("a", "b", "c"), asyncio.Event()])

    async with await world.direct.begin(a_request()) as generation:
        async for _ in generation.deltas():
            break
        assert engine.running == 1

    assert engine.running == 0
    assert nothing_is_left(world)
    assert told(world).outcome == "cancelled"


async def test_who_leaves_once_the_last_word_is_written_cancels_nothing() -> None:
    world, engine = stepping(lambda pool, request: words("a", "b"))

    async with await world.direct.begin(a_request(caller=CALLER)) as generation:
        await anext(generation.deltas())
        while engine.running:
            await asyncio.sleep(0)
        await settle()

    assert (told(world).outcome, told(world).is_success) == ("stop", True)
    assert [(used.requests, used.errors) for used in world.usage.sums.values()] == [(1, 0)]


async def test_who_leaves_while_one_of_the_samples_is_written_cancels_all_of_it() -> None:
    world, _ = stepping(
        lambda pool, request: words("a") if request.id == "r-1-0" else [asyncio.Event()]
    )
    request = a_request(input=ModelInput("x", samples=2), caller=CALLER)

    async with await world.direct.begin(request) as generation:
        deltas = generation.deltas()
        while (await anext(deltas)).delta.finish_reason is None:
            pass
        await settle()
        first_ended_s = generation.timings.total_s
        await settle()

    assert (told(world).outcome, told(world).is_success) == ("cancelled", False)
    assert told(world).timings.total_s > first_ended_s
    assert generation.was_cut
    assert [(used.requests, used.errors) for used in world.usage.sums.values()] == [(1, 0)]


async def test_a_generation_that_nobody_reads_gives_its_slots_back() -> None:
    world, engine = stepping(lambda pool, request: words("a"))

    async with await world.direct.begin(a_request()):
        assert world.slots.in_flight(CHAT) == 1

    assert engine.started == []
    assert nothing_is_left(world)


async def test_closing_twice_gives_slots_back_once() -> None:
    world, _ = stepping(lambda pool, request: words("a"))
    world.slots.occupy(CHAT, "gpu", 1)
    generation = await world.direct.begin(a_request())

    await generation.aclose()
    await generation.aclose()

    assert world.slots.in_flight(CHAT) == 1
    assert len(world.telemetry.of("answered")) == 1


async def test_closing_while_somebody_waits_for_a_delta_ends_both() -> None:
    world, engine = stepping(lambda pool, request: [asyncio.Event()])
    generation = await world.direct.begin(a_request())
    deltas = generation.deltas()
    waiting = asyncio.create_task(anext(deltas))
    await settle()
    assert engine.running == 1

    await generation.aclose()

    assert engine.running == 0
    waiting.cancel()
    await asyncio.wait([waiting])
    assert nothing_is_left(world)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("turns", range(30))
async def test_a_task_cancelled_at_any_moment_leaves_nothing_behind(
    turns: int, samples: int
) -> None:
    world, engine = stepping(lambda pool, request: words("a", "b", "c"))

    async def caller() -> None:
        request = a_request(input=ModelInput("x", samples=samples))
        async with await world.direct.begin(request) as generation:
            await read(generation)

    task = asyncio.create_task(caller())
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await settle()

    assert engine.running == 0
    assert nothing_is_left(world)


@pytest.mark.parametrize("turns", range(12))
async def test_a_whole_answer_cancelled_at_any_moment_leaves_nothing_behind(turns: int) -> None:
    world = World()

    task = asyncio.create_task(world.direct.run(a_request()))
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    await settle()

    assert nothing_is_left(world)


async def test_a_slow_reader_holds_the_engine_back_instead_of_filling_the_memory() -> None:
    written = 0

    def endless(pool: Pool, request: InferenceRequest) -> Sequence[Step]:
        class Steps(Sequence[Step]):
            def __len__(self) -> int:
                return 10_000

            def __getitem__(self, index: Any) -> Any:
                nonlocal written
                written += 1
                return Delta("a", 3, 1)

        return Steps()

    world, _ = stepping(endless)
    async with await world.direct.begin(a_request()) as generation:
        await anext(generation.deltas())
        for _ in range(1000):
            await asyncio.sleep(0)

    assert 64 <= written <= 70
