"""POST /v1/responses over scripted engines: the same path as chat, in another shape."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from synapse.api.openai import sse
from synapse.api.openai.responses.bodies import ResponseBody
from synapse.api.resolver import Response
from synapse.domain.errors import (
    ContextLengthExceeded,
    EngineError,
    EngineLost,
    EngineTimeout,
    InvalidInput,
)
from synapse.domain.inference import Completion, Delta
from synapse.domain.job import Usage
from tests.fakes import ScriptedEngine
from tests.unit.api.calls import api_of, call
from tests.unit.api.streams import chunks_of, opened
from tests.unit.api.test_chat import TOOL, a_world_for_tools, asked
from tests.unit.application.stepping import nothing_is_left, settle, stepping, words
from tests.unit.application.world import CHAT, EMBEDDER, World

RESPONSES = "/v1/responses"
CHATS = "/v1/chat/completions"
HELLO = {"model": CHAT, "input": "hello there"}
FUNCTION = {"type": "function", "name": "f", "parameters": {"type": "object"}}


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "REFUSABLE_S", 0.01)
    monkeypatch.setattr(sse, "HEARTBEAT_S", 0.01)


def read(wire: bytes) -> list[dict[str, Any]]:
    """The events of a stream; comments are no events."""
    blocks = [block for block in wire.decode().split("\n\n") if block.startswith("event: ")]
    return [json.loads(block.split("\ndata: ", 1)[1]) for block in blocks]


async def events(response: Response) -> list[dict[str, Any]]:
    return read(b"".join([chunk async for chunk in chunks_of(response)]))


async def test_a_response_has_openais_shape_and_headers() -> None:
    world = World()

    answer = await call(api_of(world), "POST", RESPONSES, HELLO)

    body = ResponseBody.model_validate(answer.json)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert (body.id[:5], body.status, body.model) == ("resp_", "completed", CHAT)
    assert answer.json["output"][0]["content"][0]["text"] == "hello there"
    assert answer.json["usage"]["total_tokens"] == 4
    assert "receipt" not in answer.json
    assert answer.headers["x-synapse-pool"] == "gpu"
    assert answer.headers["openai-version"] == "2020-10-01"
    assert float(answer.headers["x-synapse-cost-usd"]) > 0
    assert nothing_is_left(world)


async def test_a_stream_comes_with_chats_headers_and_ends_with_the_whole() -> None:
    world = World()

    response = await opened(api_of(world), RESPONSES, HELLO)
    wire = b"".join([chunk async for chunk in chunks_of(response)])
    told = read(wire)

    assert response.status == 200
    assert response.headers["content-type"] == ["text/event-stream; charset=utf-8"]
    assert response.headers["cache-control"] == ["no-cache"]
    assert response.headers["x-accel-buffering"] == ["no"]
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    assert (told[0]["type"], told[-1]["type"]) == ("response.created", "response.completed")
    assert b"[DONE]" not in wire
    ended = ResponseBody.model_validate(told[-1]["response"])
    assert ended.receipt is not None
    assert ended.receipt.pool == "gpu"
    assert ended.receipt.cost.total_usd > 0
    assert nothing_is_left(world)


async def test_each_token_is_sent_before_the_next_is_made() -> None:
    gate = asyncio.Event()
    world, _ = stepping(lambda *_: [Delta("a", 1, 1), gate, *words("b")])
    chunks = chunks_of(await opened(api_of(world), RESPONSES, HELLO))

    async with contextlib.aclosing(chunks):
        assert b"response.created" in await anext(chunks)
        assert b'"delta":"a"' in await anext(chunks)
        gate.set()
        assert b'"delta":"b"' in await anext(chunks)


async def test_a_response_is_begun_while_it_waits_for_its_worker(short_patience: None) -> None:
    gate = asyncio.Event()
    world, _ = stepping(lambda *_: [gate, *words("a")])
    chunks = chunks_of(await opened(api_of(world), RESPONSES, HELLO))

    assert b"response.in_progress" in await anext(chunks)
    assert await anext(chunks) == await anext(chunks) == b": waiting for a worker\n\n"
    gate.set()
    rest = b"".join([chunk async for chunk in chunks])

    assert b"response.completed" in rest
    assert nothing_is_left(world)


ERRORS: list[tuple[EngineError, int, str]] = [
    (InvalidInput("seed: no", param="seed"), 400, "invalid_input"),
    (EngineLost("gone"), 503, "worker_lost"),
    (EngineTimeout("late"), 504, "deadline_exceeded"),
    (EngineError("odd"), 500, "engine_error"),
]  # fmt: skip


@pytest.mark.parametrize(("error", "status", "code"), ERRORS)
@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_engine_refuses_at_once_is_a_status(
    error: EngineError, status: int, code: str, stream: bool
) -> None:
    world = World(engine=ScriptedEngine(lambda _: error))

    answer = await call(api_of(world), "POST", RESPONSES, {**HELLO, "stream": stream})

    assert (answer.status, answer.error["code"]) == (status, code)
    assert nothing_is_left(world)


@pytest.mark.parametrize("error", [EngineLost("gone"), EngineError("odd"), RuntimeError("secret")])
async def test_what_goes_wrong_later_is_a_response_that_failed(error: Exception) -> None:
    async def script(*_: object) -> object:
        yield Delta("a", 1, 1)
        await asyncio.sleep(0.01)
        raise error

    world = World()
    world.engine.stream = script

    *_, told, failed = await events(await opened(api_of(world), RESPONSES, HELLO))

    assert (told["type"], failed["type"]) == ("error", "response.failed")
    assert told["error"]["type"] == "server_error"
    assert failed["response"]["error"]["code"] == "server_error"
    assert failed["response"]["output"][0]["status"] == "incomplete"
    assert "secret" not in json.dumps([told, failed])
    assert nothing_is_left(world)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_input_beyond_the_context_is_told_in_openais_words(stream: bool) -> None:
    world = World(engine=ScriptedEngine(lambda _: ContextLengthExceeded("5000 tokens")))

    answer = await call(api_of(world), "POST", RESPONSES, {**HELLO, "stream": stream})

    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert answer.error["param"] == "input"
    assert "your input resulted in more tokens" in answer.error["message"]


async def test_a_form_that_the_engine_cannot_apply_is_told_by_its_parameter() -> None:
    error = InvalidInput("cannot", param="structured_outputs")
    world = World(engine=ScriptedEngine(lambda _: error))
    form = {"type": "json_schema", "name": "n", "schema": {"type": "nonsense"}}

    answer = await call(api_of(world), "POST", RESPONSES, {**HELLO, "text": {"format": form}})

    assert (answer.status, answer.error["param"]) == (400, "text.format")


async def test_an_effort_that_the_model_cannot_be_told_is_told_by_its_parameter() -> None:
    error = InvalidInput("reasoning_effort: cannot", param="reasoning_effort")
    world = World(engine=ScriptedEngine(lambda _: error))

    answer = await call(api_of(world), "POST", RESPONSES, {**HELLO, "reasoning": {"effort": "low"}})

    assert (answer.status, answer.error["param"]) == (400, "reasoning.effort")
    assert answer.error["message"] == "reasoning.effort: cannot"


async def test_the_effort_that_was_asked_for_is_told_again() -> None:
    body = {**HELLO, "reasoning": {"effort": "low"}}

    answer = await call(api_of(World()), "POST", RESPONSES, body)

    assert answer.json["reasoning"] == {"effort": "low", "summary": None}


@pytest.mark.parametrize(
    ("body", "status", "param", "code"),
    [
        ({**HELLO, "model": "gpt-9"}, 404, "model", "model_not_found"),
        ({**HELLO, "model": EMBEDDER}, 400, "model", "invalid_value"),
        ({**HELLO, "model": "echo"}, 400, "model", "invalid_value"),
        ({**HELLO, "max_output_tokens": 9999}, 400, "max_output_tokens", "invalid_value"),
        ({**HELLO, "tools": [FUNCTION]}, 400, "tools", "unsupported_parameter"),
        ({**HELLO, "store": True}, 400, "store", "unsupported_parameter"),
        ({**HELLO, "previous_response_id": "x"}, 400, "previous_response_id", None),
        ({**HELLO, "suffix": "x"}, 400, "suffix", "unknown_parameter"),
        ({"model": CHAT}, 400, "input", "missing_required_parameter"),
        ({**HELLO, "input": "x" * 2**21}, 413, "input", "payload_too_large"),
        ("{", 400, None, "invalid_json"),
    ],
)
async def test_what_is_refused_is_told_in_openais_shape(
    body: Any, status: int, param: str | None, code: str | None
) -> None:
    world = World()

    answer = await call(api_of(world), "POST", RESPONSES, body)

    expected = (status, code or "unsupported_parameter", param)
    assert (answer.status, answer.error["code"], answer.error["param"]) == expected
    assert world.engine.calls == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_nothing_is_stored_to_be_asked_for(method: str) -> None:
    api = api_of(World())
    made = (await call(api, "POST", RESPONSES, HELLO)).json["id"]

    answer = await call(api, method, f"{RESPONSES}/{made}")

    assert (answer.status, answer.error["code"]) == (404, "route_not_found")


async def test_a_called_tool_is_told_as_an_item() -> None:
    world = a_world_for_tools('Well. <tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>')

    answer = await call(api_of(world), "POST", RESPONSES, {**HELLO, "tools": [FUNCTION]})

    message, called = ResponseBody.model_validate(answer.json).output
    assert (message.type, called.type) == ("message", "function_call")
    assert answer.json["output"][1]["arguments"] == '{"a": 1}'
    assert asked(world).tools == (TOOL,)


async def test_a_response_and_a_chat_that_ask_the_same_share_a_kept_answer() -> None:
    world = World()
    api, headers = api_of(world), {"Synapse-Cache": "max-age=60"}
    chat = {"model": CHAT, "messages": [{"role": "user", "content": "hello there"}]}

    first = await call(api, "POST", RESPONSES, {**HELLO, "temperature": 0}, headers=headers)
    second = await call(api, "POST", CHATS, {**chat, "temperature": 0}, headers=headers)
    third = await opened(api, RESPONSES, {**HELLO, "temperature": 0}, headers)

    *_, last = await events(third)
    kept = [first.headers["synapse-cache"], second.headers["synapse-cache"]]
    assert [*kept, *third.headers["synapse-cache"]] == ["miss", "hit", "hit"]
    assert last["response"]["output"][0]["content"] == first.json["output"][0]["content"]
    assert len(world.engine.calls) == 1


async def test_a_request_that_is_sent_again_is_answered_with_the_first() -> None:
    world = World()
    api, headers = api_of(world), {"Idempotency-Key": "k"}

    first = await call(api, "POST", RESPONSES, HELLO, headers=headers)
    second = await call(api, "POST", RESPONSES, HELLO, headers=headers)
    other = await call(api, "POST", RESPONSES, {**HELLO, "input": "x"}, headers=headers)

    assert first.text == second.text
    assert (other.status, other.error["code"]) == (422, "idempotency_conflict")
    assert len(world.engine.calls) == 1


@pytest.mark.parametrize("read_events", [0, 1, 2])
async def test_a_stream_that_is_closed_ends_the_generation(
    read_events: int, short_patience: None
) -> None:
    gate = asyncio.Event()
    world, engine = stepping(lambda *_: [Delta("a", 1, 1), gate])
    chunks = chunks_of(await opened(api_of(world), RESPONSES, HELLO))
    assert engine.running == 1

    for _ in range(read_events):
        await anext(chunks)
    await chunks.aclose()
    await settle()

    assert engine.running == 0
    assert nothing_is_left(world)


async def test_a_stopping_server_has_last_words_in_the_shape_of_the_stream() -> None:
    response = await opened(api_of(World()), RESPONSES, HELLO)
    chunks = chunks_of(response)
    begun = read(await anext(chunks))

    assert response.if_cut is not None
    told, failed = read(response.if_cut())
    assert (told["code"], told["error"]["code"]) == ("server_stopping", "server_stopping")
    assert failed["response"]["id"] == begun[0]["response"]["id"]
    assert told["sequence_number"] == begun[-1]["sequence_number"] + 1
    await chunks.aclose()


async def test_an_answer_that_fills_its_tokens_is_incomplete() -> None:
    world = World(engine=ScriptedEngine(lambda _: Completion("so", "length", Usage(1, 1))))

    whole = await call(api_of(world), "POST", RESPONSES, {**HELLO, "max_output_tokens": 1})
    *_, last = await events(await opened(api_of(world), RESPONSES, HELLO))

    assert whole.json["status"] == last["response"]["status"] == "incomplete"
    assert last["type"] == "response.incomplete"
    assert asked(world).parameters["max_tokens"] is None


@pytest.mark.parametrize("message", ["messages: roles must alternate", "no chat template"])
async def test_a_refusal_of_the_conversation_names_the_input(message: str) -> None:
    error = InvalidInput(message, param="messages")
    world = World(engine=ScriptedEngine(lambda _: error))

    answer = await call(api_of(world), "POST", RESPONSES, HELLO)
    of_chat = await call(
        api_of(world), "POST", CHATS, {"model": CHAT, "messages": [{"role": "user", "content": ""}]}
    )

    assert (answer.status, answer.error["param"]) == (400, "input")
    assert answer.error["message"] == f"input: {message.removeprefix('messages: ')}"
    assert (of_chat.error["param"], of_chat.error["message"]) == ("messages", message)
