"""Finding a worker: the next pool, then again until the caller's time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from synapse.domain.errors import (
    EngineError,
    EngineUnavailable,
    Unavailable,
)
from synapse.domain.inference import Completion
from synapse.domain.job import Usage
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest
from tests.fakes import ScriptedEngine
from tests.unit.application.stepping import (
    Script,
    Step,
    a_request,
    nothing_is_left,
    read,
    stepping,
    text_of,
    words,
)
from tests.unit.application.world import World


def away_until(turn: int, calls: list[str]) -> Script:
    """Unavailable for so many calls, then answering."""

    def script(pool: Pool, request: InferenceRequest) -> Sequence[Step]:
        calls.append(pool.name)
        if len(calls) <= turn:
            return [EngineUnavailable("the worker is being started")]
        return words("a")

    return script


async def test_the_next_pool_takes_what_the_first_cannot() -> None:
    calls: list[str] = []
    world, _ = stepping(away_until(1, calls))

    async with await world.direct.begin(a_request()) as generation:
        assert text_of(await read(generation)) == "a"

    assert calls == ["gpu", "cpu"]
    assert generation.pool.name == "cpu"
    assert world.slept_s == []


async def test_a_request_is_held_with_growing_pauses_while_its_worker_starts() -> None:
    calls: list[str] = []
    world, _ = stepping(away_until(4, calls))

    async with await world.direct.begin(a_request()) as generation:
        assert text_of(await read(generation)) == "a"

    assert calls == ["gpu", "cpu"] * 2 + ["gpu"]
    assert world.slept_s == [0.05, 0.1]


async def test_a_whole_answer_is_held_likewise() -> None:
    calls: list[str] = []

    def script(request: InferenceRequest) -> Completion | EngineError:
        calls.append(request.id)
        if len(calls) <= 3:
            return EngineUnavailable("the worker is being started")
        return Completion("a", "stop", Usage(1, 1))

    world = World(engine=ScriptedEngine(script))

    answer = await world.direct.run(a_request())

    assert len(calls) == 4
    assert answer.pool.name == "cpu"


async def test_a_worker_that_does_not_come_in_time_is_a_503_with_a_time_to_come_back() -> None:
    world, _ = stepping(away_until(10**9, []))

    async with await world.direct.begin(a_request(timeout_s=0.03)) as generation:
        with pytest.raises(Unavailable) as caught:
            await read(generation)

    assert caught.value.code == "engine_unavailable"
    assert caught.value.retry_after_s > 0
    assert nothing_is_left(world)


async def test_the_engine_is_given_only_the_time_that_is_left() -> None:
    world, engine = stepping(lambda pool, request: words("a"))

    async with await world.direct.begin(a_request(timeout_s=5.0)) as generation:
        await asyncio.sleep(0.02)
        await read(generation)

    [request] = engine.requests
    assert 0 < request.timeout_s <= 4.98


async def test_a_stream_may_take_longer_than_its_caller_waits_for_its_start() -> None:
    world, engine = stepping(lambda pool, request: words("a"))

    request = a_request(timeout_s=5.0, stream_s=300.0)
    async with await world.direct.begin(request) as generation:
        await read(generation)

    [asked] = engine.requests
    assert 200.0 < asked.timeout_s <= 300.0


async def test_a_stream_whose_worker_does_not_come_is_given_up_when_its_caller_does() -> None:
    world, _ = stepping(away_until(10**9, []))

    request = a_request(timeout_s=0.03, stream_s=300.0)
    async with await world.direct.begin(request) as generation:
        with pytest.raises(Unavailable):
            await read(generation)
