"""Lines of batches are read, answered and refused as the routes would."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from openai.types.responses import Response

from synapse.api.openai.lines import CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES, OpenAiLines
from synapse.application.revocations import KEY_REVOKED
from synapse.domain.access import ANYONE, Principal
from synapse.domain.errors import ContextLengthExceeded, EngineError, InvalidInput, SynapseError
from synapse.domain.inference import ChatMessage, Completion, Embeddings, Result
from synapse.domain.job import Failure, Usage
from synapse.domain.model import Task
from tests.factories import a_chat_model, a_model
from tests.fakes import MemoryRegistry, ScriptedEngine
from tests.unit.api.calls import api_of, call
from tests.unit.application.world import CHAT as CHAT_MODEL
from tests.unit.application.world import EMBEDDER, World

MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def lines() -> OpenAiLines:
    embedder = a_model("minilm", task=Task.EMBED, dimensions=2)
    return OpenAiLines(MemoryRegistry([a_chat_model("chat"), embedder]))


async def refused(
    lines: OpenAiLines, endpoint: str, body: Mapping[str, Any], caller: Principal = ANYONE
) -> dict[str, Any]:
    with pytest.raises(SynapseError) as caught:
        await lines.parse(endpoint, body, caller)
    status, answer = await lines.refusal(endpoint, body, caught.value)
    return {"status": int(status), **answer["error"]}


async def test_a_chat_line_asks_for_what_the_route_would(lines: OpenAiLines) -> None:
    body = {"model": "chat", "messages": MESSAGES, "max_tokens": 3, "temperature": 0}

    request = await lines.parse(CHAT, body, ANYONE)

    assert request.model == "chat"
    assert request.input.messages == (ChatMessage("user", "Hi"),)
    assert request.input.parameters["max_tokens"] == 3


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_a_line_says_how_long_under_the_name_that_its_caller_used(
    lines: OpenAiLines, name: str
) -> None:
    request = await lines.parse(CHAT, {"model": "chat", "messages": MESSAGES, name: 3}, ANYONE)

    assert request.length_at == name


async def test_a_line_tells_nothing_of_models_that_its_caller_may_not_use(
    lines: OpenAiLines,
) -> None:
    caller = Principal("acme", "key1", models=frozenset({"chat"}))
    body = {"input": "Hi", "dimensions": 99}  # as this model cannot

    hidden = await refused(lines, EMBEDDINGS, {"model": "minilm", **body}, caller)
    unknown = await refused(lines, EMBEDDINGS, {"model": "nobody", **body}, caller)

    assert (hidden["status"], hidden["code"]) == (404, "model_not_found")
    assert "minilm" not in unknown["message"]
    assert hidden == {**unknown, "message": unknown["message"].replace("nobody", "minilm")}


@pytest.mark.parametrize("named", ["auto", "default", "flex", "priority"])
@pytest.mark.parametrize(
    ("endpoint", "asked"),
    [(CHAT, {"messages": MESSAGES}), (COMPLETIONS, {"prompt": "Hi"}), (RESPONSES, {"input": "Hi"})],
)
async def test_a_line_is_told_as_what_it_ran_as(
    lines: OpenAiLines, endpoint: str, asked: dict[str, Any], named: str
) -> None:
    body = {"model": "chat", **asked, "service_tier": named}

    answer = await lines.render(endpoint, body, "batch_ab-1", 0, Completion("a", "stop", Usage()))

    assert answer["service_tier"] == "flex"


async def test_a_line_whose_key_was_revoked_with_its_jobs_is_no_fault_of_the_server(
    lines: OpenAiLines,
) -> None:
    asked = {"model": "chat", "messages": MESSAGES}

    status, body = await lines.refusal(CHAT, asked, KEY_REVOKED)

    assert (status, body["error"]["type"]) == (401, "authentication_error")
    assert body["error"]["code"] == "key_revoked"


async def test_a_chat_line_is_answered_with_the_routes_body(lines: OpenAiLines) -> None:
    body = {"model": "chat", "messages": MESSAGES}
    result = Completion("Hello", "stop", Usage(2, 1, 1))

    answer = await lines.render(CHAT, body, "batch_ab-000007", 1234.5, result)

    assert answer["id"] == "chatcmpl-ab-000007"
    assert (answer["object"], answer["created"], answer["model"]) == (
        "chat.completion",
        1234,
        "chat",
    )
    assert answer["choices"][0]["message"]["content"] == "Hello"
    assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}
    assert json.loads(json.dumps(answer)) == answer


async def test_a_completion_line_is_answered_with_the_routes_body(lines: OpenAiLines) -> None:
    body = {"model": "chat", "prompt": "Once", "echo": True}

    request = await lines.parse(COMPLETIONS, body, ANYONE)
    answer = await lines.render(
        COMPLETIONS, body, "batch_ab-000001", 5, Completion(" upon", "length", Usage(1, 1))
    )

    assert request.input.prompt == "Once"
    assert answer["object"] == "text_completion"
    assert answer["choices"][0]["text"] == "Once upon"


async def test_a_response_line_is_answered_with_the_routes_body(lines: OpenAiLines) -> None:
    body = {"model": "chat", "input": "Hi", "instructions": "Be kind.", "max_output_tokens": 3}

    request = await lines.parse(RESPONSES, body, ANYONE)
    result = Completion("Hello", "length", Usage(2, 1, 1))
    answer = await lines.render(RESPONSES, body, "batch_ab-000007", 1234.5, result)

    assert request.input.messages == (ChatMessage("system", "Be kind."), ChatMessage("user", "Hi"))
    assert (request.input.parameters["max_tokens"], request.length_at) == (3, "max_output_tokens")
    assert (answer["id"], answer["created_at"]) == ("resp_ab-000007", 1234)
    assert (answer["status"], answer["instructions"]) == ("incomplete", "Be kind.")
    assert answer["output"][0]["content"][0]["text"] == "Hello"
    assert answer["usage"]["input_tokens_details"]["cached_tokens"] == 1
    Response.model_validate(answer, strict=True)


async def test_a_response_line_is_answered_alike_whenever_it_is_written(
    lines: OpenAiLines,
) -> None:
    line = (RESPONSES, {"model": "chat", "input": "Hi"}, "batch_ab-000007", 1234.5)

    first = await lines.render(*line, Completion("Hello", "stop", Usage(2, 1)))

    assert (first["status"], first["completed_at"]) == ("completed", 1234)
    assert first == await lines.render(*line, Completion("Hello", "stop", Usage(2, 1)))


async def test_an_embedding_line_is_answered_with_the_routes_body(lines: OpenAiLines) -> None:
    body = {"model": "minilm", "input": ["a", "b"]}
    one = b"\x00\x00\x80\x3f\x00\x00\x00\x00"

    request = await lines.parse(EMBEDDINGS, body, ANYONE)
    answer = await lines.render(EMBEDDINGS, body, "x", 5, Embeddings((one, one), Usage(4)))

    assert request.input.inputs == ("a", "b")
    assert [each["embedding"] for each in answer["data"]] == [[1.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize(
    ("endpoint", "body", "code", "param"),
    [
        (CHAT, {"model": "chat"}, "missing_required_parameter", "messages"),
        (CHAT, {"model": "chat", "messages": MESSAGES, "nope": 1}, "unknown_parameter", "nope"),
        (
            CHAT,
            {"model": "chat", "messages": MESSAGES, "temperature": 9},
            "invalid_value",
            "temperature",
        ),
        (
            CHAT,
            {"model": "chat", "messages": MESSAGES, "stream": True},
            "unsupported_parameter",
            "stream",
        ),
        (
            COMPLETIONS,
            {"model": "chat", "prompt": ["a", "b"]},
            "unsupported_parameter",
            "prompt",
        ),
        (EMBEDDINGS, {"model": "minilm", "input": []}, "invalid_value", "input"),
        (RESPONSES, {"model": "chat"}, "missing_required_parameter", "input"),
        (
            RESPONSES,
            {"model": "chat", "input": "a", "stream": True},
            "unsupported_parameter",
            "stream",
        ),
        (
            RESPONSES,
            {"model": "chat", "input": "a", "previous_response_id": "r"},
            "unsupported_parameter",
            "previous_response_id",
        ),
        (
            EMBEDDINGS,
            {"model": "minilm", "input": "a", "dimensions": 7},
            "unsupported_parameter",
            "dimensions",
        ),
    ],
)
async def test_a_body_is_refused_as_by_the_route(
    lines: OpenAiLines, endpoint: str, body: Mapping[str, Any], code: str, param: str
) -> None:
    error = await refused(lines, endpoint, body)

    assert (error["status"], error["code"], error["param"]) == (400, code, param)
    assert error["message"].startswith(param)
    assert set(error) == {"status", "message", "type", "param", "code"}


async def test_an_unknown_model_is_not_found(lines: OpenAiLines) -> None:
    error = await refused(lines, CHAT, {"model": "x", "messages": MESSAGES})

    assert (error["status"], error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("invalid_input", 400),
        ("context_length_exceeded", 400),
        ("worker_lost", 503),
        ("load_failed", 503),
        ("deadline_exceeded", 504),
        ("engine_error", 500),
        ("never heard of", 500),
    ],
)
async def test_a_failure_of_the_engine_has_the_routes_status(
    lines: OpenAiLines, code: str, status: int
) -> None:
    asked = {"model": "chat", "messages": MESSAGES}

    got, body = await lines.refusal(CHAT, asked, Failure(code, "why"))

    assert (int(got), body["error"]["code"]) == (status, code)
    assert body["error"]["message"] == "why" or code == "context_length_exceeded"


@pytest.mark.parametrize(
    "error",
    [
        InvalidInput("temperature: it is too hot", param="temperature"),
        InvalidInput("messages: there are none", param="messages"),
        InvalidInput("input.0: it has ids that no token has", param="input.0"),
        InvalidInput("the engine will not have it"),
        InvalidInput("the grammar has no rule", param="structured_outputs"),
        ContextLengthExceeded("9999 tokens are too many"),
    ],
)
@pytest.mark.parametrize(
    ("endpoint", "asked"),
    [
        (CHAT, {"messages": MESSAGES, "response_format": {"type": "json_object"}}),
        (COMPLETIONS, {"prompt": "Hi"}),
        (RESPONSES, {"input": "Hi"}),
        (EMBEDDINGS, {"model": EMBEDDER, "input": "Hi"}),
        (EMBEDDINGS, {"model": EMBEDDER, "input": ["Hi", "there"]}),
    ],
)
async def test_what_only_the_engine_refuses_is_told_as_on_the_line(
    endpoint: str, asked: dict[str, Any], error: InvalidInput
) -> None:
    world = World(engine=ScriptedEngine(lambda _: error))
    body = {"model": CHAT_MODEL, **asked}
    answer = await call(api_of(world), "POST", endpoint, body)
    job = await world.submit()
    await world.work()
    failure = (await world.job(job.id)).failure
    assert failure is not None

    status, told = await OpenAiLines(world.registry).refusal(endpoint, body, failure)

    assert (status, told) == (answer.status, answer.json)


@pytest.mark.parametrize(
    ("endpoint", "body", "result"),
    [
        (CHAT, {"model": "chat", "messages": MESSAGES}, Embeddings((), Usage())),
        (EMBEDDINGS, {"model": "minilm", "input": "a"}, Completion("a", "stop", Usage())),
    ],
)
async def test_a_result_of_the_wrong_kind_is_an_error(
    lines: OpenAiLines, endpoint: str, body: Mapping[str, Any], result: Result
) -> None:
    with pytest.raises(EngineError):
        await lines.render(endpoint, body, "x", 0, result)
