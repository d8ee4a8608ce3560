"""What a refusal says of where the fault is."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.api.openai.lines import CHAT as CHAT_LINES
from synapse.api.openai.lines import OpenAiLines
from synapse.domain.access import ANYONE
from synapse.domain.errors import InvalidRequest
from tests.unit.api.calls import api_of, call
from tests.unit.application.world import CHAT, World

CHATS = "/v1/chat/completions"
WORDS = ["body", "query", "header", "path", "str", "list[str]", "constrained-str", "frobnicate"]
HELLO = {"role": "user", "content": "Hello"}
BODIES: dict[str, dict[str, Any]] = {
    CHATS: {"model": CHAT, "messages": [HELLO]},
    "/async-infer": {"model": "echo", "prompt": "x"},
    "/infer": {"model": "echo", "prompt": "x"},
    "/api/webhooks": {"url": "https://example.com/", "events": ["job.completed"]},
}


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("path", BODIES)
async def test_an_unknown_field_is_named_whatever_its_name(path: str, word: str) -> None:
    answer = await call(api_of(World()), "POST", path, {**BODIES[path], word: 1})

    assert (answer.status, answer.error["code"]) == (400, "unknown_parameter")
    assert answer.error["param"] == word
    assert answer.error["message"].startswith(f"{word}: is not a field of this request")


@pytest.mark.parametrize("word", WORDS)
async def test_an_unknown_field_of_a_field_is_named_with_its_place(word: str) -> None:
    body = {**BODIES[CHATS], "messages": [HELLO, {**HELLO, word: 1}]}

    answer = await call(api_of(World()), "POST", CHATS, body)

    assert answer.error["param"] == f"messages.1.{word}"


@pytest.mark.parametrize("word", WORDS)
async def test_an_unknown_field_of_a_line_is_named(word: str) -> None:
    lines = OpenAiLines(World().registry)

    with pytest.raises(InvalidRequest) as refused:
        await lines.parse(CHAT_LINES, {**BODIES[CHATS], word: 1}, ANYONE)

    assert refused.value.param == word


@pytest.mark.parametrize("word", WORDS)
async def test_an_unknown_field_of_a_task_is_named(word: str) -> None:
    tasks = [{"data": {"text": "x", word: 1}}, {"data": {"text": "x"}, word: 1}]

    answer = await call(api_of(World()), "POST", "/api/inference/batch", {"requests": tasks})

    assert [each["error"]["param"] for each in answer.json["results"]] == [f"data.{word}", word]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"metadata": {"body": 1}}, "metadata.body"),
        ({"stop": 1}, "stop"),
        ({"stop": [1]}, "stop.0"),
        ({"tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"model": 1}, "model"),
    ],
)
async def test_a_value_is_told_by_its_place_alone(fields: dict[str, Any], param: str) -> None:
    answer = await call(api_of(World()), "POST", CHATS, {**BODIES[CHATS], **fields})

    assert answer.error["param"] == param
