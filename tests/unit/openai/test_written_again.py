"""A body that was read can be written again, as it is to tell whether a request came before."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from synapse.api.openai.client import attempt_of
from synapse.api.openai.embeddings import EmbeddingsRequest
from synapse.api.openai.responses.schemas import ResponsesRequest
from synapse.api.openai.schemas import ChatRequest, CompletionRequest
from synapse.domain.access import ANYONE
from tests.unit.openai.asking import HELLO, SCHEMA, TOOL

PARTS = [{"role": "user", "content": [{"type": "text", "text": "Hello"}]}]
CALLED = [
    {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ],
    }
]
NAMED = {"type": "function", "function": {"name": "f"}}
FORM = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA}}
TEXTS_OR_TOKENS: list[Any] = ["a", ["a", "b"], [1, 2], [[1], [2, 3]]]

SCHEMA_OF = {"name": "a", "schema": SCHEMA}
FUNCTION = {"type": "function", "name": "f", "parameters": SCHEMA}
ITEMS = [
    {"role": "user", "content": [{"type": "input_text", "text": "a"}], "odd": None},
    {"type": "message", "role": "assistant", "content": "b", "id": "msg_1"},
    {"type": "reasoning", "id": "rs_1", "summary": []},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "d"},
    {"type": "item_reference", "id": "msg_2"},
    {"role": "user", "content": [{"type": "input_image", "image_url": "u"}]},
]
CHOICES: list[Any] = [
    *("none", "auto", "required", {"type": "function", "name": "f"}, {"type": "web_search"}),
    {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
]

EITHER: list[dict[str, Any]] = [
    *({"stop": stop} for stop in ("a", ["a", "b"], [])),
    *({"guided_json": schema} for schema in (SCHEMA, "{}")),
    *({"structured_outputs": {"json": schema}} for schema in (SCHEMA, "{}")),
    {"structured_outputs": {"choice": ["a"]}},
    {"stream": True, "stream_options": {"include_usage": True}},
]
BODIES: list[tuple[type[BaseModel], dict[str, Any]]] = [
    *((ChatRequest, {"messages": turns}) for turns in (HELLO, PARTS, CALLED)),
    *((ChatRequest, {"messages": HELLO, **fields}) for fields in EITHER),
    *(
        (ChatRequest, {"messages": HELLO, "tools": [TOOL], "tool_choice": choice})
        for choice in ("none", "auto", "required", NAMED)
    ),
    (ChatRequest, {"messages": HELLO, "response_format": FORM}),
    *((CompletionRequest, {"prompt": prompt}) for prompt in ("", *TEXTS_OR_TOKENS)),
    *((CompletionRequest, {"prompt": "a", **fields}) for fields in EITHER),
    *((ResponsesRequest, {"input": value}) for value in ("", "a", ITEMS)),
    *(
        (ResponsesRequest, {"input": "a", "tools": [FUNCTION, {"type": "mcp"}], "tool_choice": one})
        for one in CHOICES
    ),
    (ResponsesRequest, {"input": "a", "text": {"format": {"type": "json_schema", **SCHEMA_OF}}}),
    *((EmbeddingsRequest, {"input": value}) for value in TEXTS_OR_TOKENS),
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("model", "fields"), BODIES)
def test_a_body_is_the_same_when_it_is_written_and_read(
    model: type[BaseModel], fields: dict[str, Any]
) -> None:
    body = model.model_validate({"model": "m", **fields})

    written = body.model_dump_json(exclude_unset=True, by_alias=True)

    assert model.model_validate_json(written) == body


@pytest.mark.parametrize(("key", "retries"), [("k", None), (None, "0"), ("k", "1")])
@pytest.mark.parametrize(("model", "fields"), BODIES)
def test_an_attempt_is_known_by_its_body(
    model: type[BaseModel], fields: dict[str, Any], key: str | None, retries: str | None
) -> None:
    body, other = (model.model_validate({"model": name, **fields}) for name in "mn")

    first, again, else_ = (
        attempt_of(ANYONE, "r", each, key, retries).body for each in (body, body, other)
    )

    assert first == again != else_
