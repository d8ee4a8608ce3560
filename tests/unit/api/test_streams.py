"""Streamed answers: what comes when, what ends them, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence

import pytest

from synapse.api.openai import sse
from synapse.api.openai.chunks import ChunkWriter
from synapse.domain.errors import EngineError, EngineLost, InvalidInput
from synapse.domain.inference import Delta
from synapse.domain.job import JobId
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest
from tests.patience import until
from tests.unit.api.calls import api_of, call
from tests.unit.api.streams import chunks_of, events, opened, texts
from tests.unit.application.stepping import Step, nothing_is_left, settle, stepping, words
from tests.unit.application.world import CHAT, World

CHATS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HELLO = {"model": CHAT, "messages": [{"role": "user", "content": "hello there"}]}
PROMPT = {"model": CHAT, "prompt": "hello there"}


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "REFUSABLE_S", 0.01)
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.01)


async def test_a_stream_comes_with_its_headers_and_ends_with_done() -> None:
    world = World()

    response = await opened(api_of(world), CHATS, HELLO)
    *told, done = await events(response)

    assert response.status == 200
    assert response.headers["content-type"] == ["text/event-stream; charset=utf-8"]
    assert response.headers["cache-control"] == ["no-cache"]
    assert response.headers["x-accel-buffering"] == ["no"]
    assert response.headers["x-request-id"] == ["req-1"]
    assert done == "[DONE]"
    assert texts(told) == {0: "hello there"}
    assert {(chunk["id"], chunk["created"]) for chunk in told} == {
        (told[0]["id"], told[0]["created"])
    }
    assert nothing_is_left(world)


async def test_each_token_is_sent_before_the_next_is_made() -> None:
    gates = [asyncio.Event() for _ in range(2)]
    world, _ = stepping(
        lambda *_: [Delta("a", 1, 1), gates[0], Delta("b", 1, 1), gates[1], *words()]
    )
    chunks = chunks_of(await opened(api_of(world), COMPLETIONS, PROMPT))

    async with contextlib.aclosing(chunks):
        assert b'"text":"a"' in await anext(chunks)
        gates[0].set()
        assert b'"text":"b"' in await anext(chunks)
        gates[1].set()
        assert b'"finish_reason":"stop"' in await anext(chunks)
        assert await anext(chunks) == b"data: [DONE]\n\n"


async def test_choices_of_all_prompts_are_interleaved_under_their_own_numbers() -> None:
    def script(_: object, request: InferenceRequest) -> Sequence[Step]:
        return words(f"{request.input.prompt}", f"-{request.id[-1]}")

    world, _ = stepping(script)
    body = {**PROMPT, "prompt": ["a", "b"], "n": 2, "stream_options": {"include_usage": True}}

    *told, usage, _ = await events(await opened(api_of(world), COMPLETIONS, body))

    assert texts(told) == {0: "a-0", 1: "a-1", 2: "b-0", 3: "b-1"}
    order = [chunk["choices"][0]["index"] for chunk in told]
    assert order != sorted(order)
    assert usage["usage"] == {
        "prompt_tokens": 6,
        "completion_tokens": 8,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    assert nothing_is_left(world)


async def test_one_prompt_that_fails_ends_the_others() -> None:
    def script(_: object, request: InferenceRequest) -> Sequence[Step]:
        return [EngineLost("gone")] if request.input.prompt == "b" else words(*"abcdefgh")

    world, engine = stepping(script)

    answer = await call(
        api_of(world), "POST", COMPLETIONS, {**PROMPT, "prompt": ["a", "b"], "stream": True}
    )

    assert '"code":"worker_lost"' in answer.text
    assert "[DONE]" not in answer.text
    assert engine.running == 0
    assert nothing_is_left(world)


@pytest.mark.parametrize("error", [EngineLost("gone"), EngineError("odd"), RuntimeError("secret")])
async def test_what_goes_wrong_in_a_stream_is_its_last_event(error: Exception) -> None:
    async def script(*_: object) -> object:
        yield Delta("a", 1, 1)
        await asyncio.sleep(0.01)
        raise error

    world = World()
    world.engine.stream = script
    chunk, *_, last = await events(await opened(api_of(world), COMPLETIONS, PROMPT))

    assert chunk["choices"][0]["text"] == "a"
    assert set(last["error"]) == {"message", "type", "param", "code"}
    assert last["error"]["type"] == "server_error"
    assert "secret" not in json.dumps(last)
    assert nothing_is_left(world)


async def test_a_stream_waits_for_its_worker_with_heartbeats(short_patience: None) -> None:
    gate = asyncio.Event()
    world, _ = stepping(lambda *_: [gate, *words("a")])
    chunks = chunks_of(await opened(api_of(world), CHATS, HELLO))

    assert await anext(chunks) == await anext(chunks) == b": waiting for a worker\n\n"
    gate.set()
    rest = b"".join([chunk async for chunk in chunks])

    assert b'"content":"a"' in rest
    assert rest.endswith(b"data: [DONE]\n\n")
    assert nothing_is_left(world)


async def test_an_error_after_heartbeats_is_an_event(short_patience: None) -> None:
    gate = asyncio.Event()
    world, _ = stepping(lambda *_: [gate, EngineLost("gone")])
    response = await opened(api_of(world), CHATS, HELLO)
    gate.set()

    *_, last = await events(response)

    assert response.status == 200
    assert last["error"]["code"] == "worker_lost"


@pytest.mark.parametrize("read", [0, 1, 2])
async def test_a_stream_that_is_closed_frees_its_slots(read: int, short_patience: None) -> None:
    gate = asyncio.Event()
    world, engine = stepping(lambda *_: [Delta("a", 1, 1), Delta("b", 1, 1), gate])
    chunks = chunks_of(await opened(api_of(world), COMPLETIONS, {**PROMPT, "n": 2}))

    for _ in range(read):
        await anext(chunks)
    await chunks.aclose()
    await settle()

    assert engine.running == 0
    assert nothing_is_left(world)


@pytest.mark.parametrize("body", [PROMPT, {**PROMPT, "prompt": ["a", "b"]}])
@pytest.mark.parametrize("is_stream", [True, False])
async def test_a_caller_who_leaves_before_anything_came_frees_its_slots(
    body: dict[str, object], is_stream: bool
) -> None:
    gate = asyncio.Event()
    world, engine = stepping(lambda *_: [gate])
    if not is_stream:
        world.engine.infer = _never
    response = asyncio.create_task(
        opened(api_of(world), COMPLETIONS, {**body, "stream": is_stream})
    )
    prompts = 1 if isinstance(body["prompt"], str) else 2
    await until(lambda: world.slots.in_flight(CHAT) == prompts)

    response.cancel()
    with pytest.raises(asyncio.CancelledError):
        await response
    await settle()

    assert engine.running == 0
    assert nothing_is_left(world)
    assert [told.outcome for [told] in world.telemetry.of("answered")] == ["cancelled"] * prompts


@pytest.mark.parametrize("is_stream", [True, False])
async def test_prompts_that_are_given_up_with_another_count_as_that_one_and_not_as_cancelled(
    is_stream: bool,
) -> None:
    gate = asyncio.Event()
    refusal = InvalidInput("it is too hot", param="temperature")
    world, _ = stepping(lambda _, request: [refusal] if request.input.prompt == "bad" else [gate])

    async def infer(
        model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, InvalidInput], None]:
        if requests[0].input.prompt != "bad":
            await gate.wait()
        yield requests[0].id, refusal

    world.engine.infer = infer
    body = {**PROMPT, "prompt": ["a", "bad", "b"], "stream": is_stream}

    answer = await call(api_of(world), "POST", COMPLETIONS, body)
    await settle()

    assert (answer.status, answer.error["param"]) == (400, "temperature")
    assert [told.outcome for [told] in world.telemetry.of("answered")] == ["invalid_input"] * 3
    assert nothing_is_left(world)


async def test_a_kept_answer_is_streamed_as_one() -> None:
    world = World()
    api, headers = api_of(world), {"Synapse-Cache": "max-age=60"}
    body = {**HELLO, "temperature": 0, "n": 2}

    first = await opened(api, CHATS, body, headers)
    told = texts((await events(first))[:-1])
    second = await opened(api, CHATS, body, headers)
    again = texts((await events(second))[:-1])
    whole = await call(api, "POST", CHATS, body, headers=headers)

    assert (first.headers["synapse-cache"], second.headers["synapse-cache"]) == (["miss"], ["hit"])
    assert told == again == {0: "hello there", 1: "hello there"}
    assert whole.headers["synapse-cache"] == "hit"
    assert len(world.engine.calls) == 2  # the two samples of the first


async def test_a_stopping_server_has_last_words_for_a_stream() -> None:
    response = await opened(api_of(World()), CHATS, HELLO)

    assert response.if_cut is not None
    said = json.loads(response.if_cut().removeprefix(b"data: "))
    assert said["error"]["code"] == "server_stopping"
    await chunks_of(response).aclose()


async def _never(*_: object) -> object:
    await asyncio.Event().wait()
    yield


@pytest.mark.parametrize("headers", [{}, {"x-stainless-retry-count": "0"}])
async def test_of_a_stream_that_breaks_for_reasons_of_ours_the_log_has_the_id_that_its_caller_has(
    headers: dict[str, str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(ChunkWriter, "end")

    response = await opened(api_of(World()), CHATS, HELLO, headers)
    *_, last = await events(response)

    assert "the request id finds it in the log" in last["error"]["message"]
    [record] = caplog.records
    assert vars(record)["request_id"] == response.headers["x-request-id"][0] == "req-1"


async def test_of_an_engine_that_breaks_for_reasons_of_ours_the_log_has_that_id_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(pool: Pool, request: InferenceRequest) -> Sequence[Step]:
        raise RuntimeError("oh")

    world, _ = stepping(broken)
    answer = await call(api_of(world), "POST", CHATS, {**HELLO, "stream": True})

    assert (answer.status, answer.error["code"]) == (500, "engine_error")
    assert "see the log" in answer.error["message"]
    [record] = caplog.records
    assert vars(record)["request_id"] == answer.headers["x-request-id"]
