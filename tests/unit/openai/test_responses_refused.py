"""What of the Responses API cannot be honoured is refused, by name; what changes nothing is not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from synapse.api.errors import validation_error
from synapse.api.openai.responses.refused import INSTEAD, RESPONSES_CHANGE_NOTHING
from synapse.api.openai.responses.schemas import (
    EventOptions,
    Reasoning,
    ResponsesRequest,
    TextConfig,
)
from synapse.domain.errors import InvalidRequest
from tests.unit.openai.asking import SCHEMA, parameters, response

FUNCTION = {"type": "function", "name": "f", "parameters": SCHEMA}
NAMED = {"type": "function", "name": "f"}
PLACES: dict[str, type[Any]] = {
    "": ResponsesRequest,
    "reasoning": Reasoning,
    "text": TextConfig,
    "stream_options": EventOptions,
}


def refusal(fields: dict[str, Any]) -> tuple[str | None, str, str]:
    """The param, code and message of a refusal, wherever it is found."""
    try:
        response(**fields)
    except ValidationError as error:
        message, param, code = validation_error(error.errors())
    except InvalidRequest as error:
        message, param, code = error.message, error.param, error.code
    else:
        pytest.fail("it was not refused")
    assert param is None or message.startswith(f"{param}:")
    return param, code, message


def unsupported() -> list[tuple[str, str]]:
    """Every parameter of the route that cannot be honoured, with where it stands."""
    return [
        (place, name)
        for place, model in PLACES.items()
        for name in model.model_fields.keys() & RESPONSES_CHANGE_NOTHING.keys()
    ]


def with_field(place: str, name: str, value: Any) -> dict[str, Any]:
    fields = {place: {name: value}} if place else {name: value}
    return {**fields, "stream": True} if place == "stream_options" else fields


UNSUPPORTED = sorted(unsupported())
NEUTRAL = [
    (place, name, value)
    for place, name in UNSUPPORTED
    for value in (*RESPONSES_CHANGE_NOTHING[name], None)
]


@pytest.mark.parametrize(("place", "name", "value"), NEUTRAL)
def test_a_value_that_changes_nothing_is_accepted(place: str, name: str, value: Any) -> None:
    assert parameters(response(**with_field(place, name, value))) == parameters(response())


@pytest.mark.parametrize(("place", "name"), UNSUPPORTED)
def test_any_other_value_is_refused_by_name(place: str, name: str) -> None:
    param, code, message = refusal(with_field(place, name, {"some": "thing"}))

    assert (param, code) == (f"{place}.{name}".lstrip("."), "unsupported_parameter")
    assert message.endswith(INSTEAD.get(name, ""))


TOO_MUCH: list[tuple[str, str, Any]] = [
    ("", "background", True),
    ("", "context_management", [{"type": "compaction"}]),
    ("", "prompt_cache_options", {"mode": "explicit"}),
    ("", "prompt_cache_retention", "24h"),
    ("", "store", True),
    ("", "store", 0),
    ("", "truncation", "auto"),
    ("reasoning", "context", "all_turns"),
    ("reasoning", "generate_summary", "concise"),
    ("reasoning", "mode", "pro"),
    ("reasoning", "summary", "detailed"),
    ("stream_options", "include_obfuscation", True),
    ("text", "verbosity", "low"),
]


@pytest.mark.parametrize(("place", "name", "value"), TOO_MUCH)
def test_a_value_that_would_change_something_is_refused(place: str, name: str, value: Any) -> None:
    param = f"{place}.{name}".lstrip(".")

    assert refusal(with_field(place, name, value))[:2] == (param, "unsupported_parameter")


def test_no_parameter_that_cannot_be_honoured_is_forgotten() -> None:
    found = {name for _, name in UNSUPPORTED}

    assert {"store", "previous_response_id", "conversation", "background", "prompt"} <= found
    assert {"truncation", "summary", "verbosity", "include_obfuscation"} <= found
    assert {"moderation", "max_tool_calls", "context_management"} <= found
    declared = {
        name
        for model in PLACES.values()
        for name, field in model.model_fields.items()
        if field.description == "Only the value that changes nothing is accepted."
    }
    assert declared == found


@pytest.mark.parametrize(
    ("fields", "how"),
    [
        ({"store": True}, "send the whole conversation in input"),
        ({"previous_response_id": "resp_1"}, "send the whole conversation in input"),
        ({"conversation": "conv_1"}, "send the whole conversation in input"),
        ({"background": True}, "POST /async-infer"),
        ({"max_tokens": 5}, "use max_output_tokens"),
        ({"messages": []}, "use input"),
        ({"response_format": {"type": "text"}}, "use text.format"),
        (
            {"input": [{"type": "item_reference", "id": "msg_1"}]},
            "send the whole conversation in input",
        ),
    ],
)
def test_a_refusal_says_what_to_do_instead(fields: dict[str, Any], how: str) -> None:
    assert how in refusal(fields)[2]


def part(**fields: Any) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [fields]}]


OTHERS: list[tuple[dict[str, Any], str]] = [
    *(
        ({"tools": [FUNCTION, {"type": kind, "x": 1}]}, "tools.1.type")
        for kind in ("web_search", "file_search", "code_interpreter", "mcp", "custom", "computer")
    ),
    ({"tools": [FUNCTION], "tool_choice": {"type": "web_search"}}, "tool_choice.type"),
    *(
        ({"input": part(type=kind, image_url="u")}, "input.0.content.0.type")
        for kind in ("input_image", "input_file", "input_audio")
    ),
    *(
        ({"input": [{"role": "user", "content": "x"}, {"type": kind, "id": "i"}]}, "input.1.type")
        for kind in ("item_reference", "web_search_call", "computer_call", "custom_tool_call")
    ),
    (
        {
            "input": [
                {
                    "type": "function_call_output",
                    "call_id": "c",
                    "output": [{"type": "input_image", "file_id": "f"}],
                }
            ]
        },
        "input.0.output.0.type",
    ),
    (
        {"tools": [FUNCTION], "include": ["message.output_text.logprobs"]},
        "include",
    ),
]


@pytest.mark.parametrize(("fields", "param"), OTHERS)
def test_what_is_known_elsewhere_only_is_refused_by_name(
    fields: dict[str, Any], param: str
) -> None:
    assert refusal(fields)[:2] == (param, "unsupported_parameter")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": []}, "input", "invalid_value"),
        ({"input": None}, "input", "invalid_type"),
        ({"input": [5]}, "input.0", "invalid_type"),
        ({"input": [{"type": 5}]}, "input.0.type", "invalid_value"),
        ({"input": [{"role": "wizard", "content": "x"}]}, "input.0.role", "invalid_value"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input.0.role", "invalid_value"),
        ({"input": [{"role": "user"}]}, "input.0.content", "missing_required_parameter"),
        ({"input": [{"type": "reasoning", "id": "r", "summary": []}]}, "input", None),
        (
            {"input": [{"role": "user", "content": "x", "tool_calls": []}]},
            "input.0.tool_calls",
            "unknown_parameter",
        ),
        (
            {"input": [{"role": "user", "content": "x", "channel": "a"}]},
            "input.0.channel",
            "unknown_parameter",
        ),
        ({"input": part(text="x")}, "input.0.content.0.type", "missing_required_parameter"),
        (
            {"input": part(type="input_text")},
            "input.0.content.0.text",
            "missing_required_parameter",
        ),
        (
            {"input": [{"type": "function_call", "name": "f", "arguments": "{}"}]},
            "input.0.call_id",
            "missing_required_parameter",
        ),
        (
            {"input": [{"type": "function_call_output", "call_id": "c"}]},
            "input.0.output",
            "missing_required_parameter",
        ),
        ({"max_output_tokens": 0}, "max_output_tokens", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"include": ["everything"]}, "include.0", "invalid_value"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
        ({"text": {"format": {"type": "json_schema", "name": "a"}}}, "text.format.schema", None),
        ({"text": {"format": {"type": "json_schema", "schema": {}}}}, "text.format.name", None),
        ({"text": {"format": {"type": "text", "schema": {}}}}, "text.format.schema", None),
        (
            {"text": {"format": {"type": "json_object"}}, "guided_regex": "a"},
            "text.format",
            "invalid_value",
        ),
        (
            {"tools": [FUNCTION], "text": {"format": {"type": "json_object"}}},
            "tools",
            "invalid_value",
        ),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tool_choice": "maybe"}, "tool_choice", "invalid_value"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls", "invalid_value"),
        (
            {"tools": [FUNCTION], "tool_choice": {**NAMED, "name": "g"}},
            "tool_choice.name",
            "invalid_value",
        ),
        (
            {
                "tools": [FUNCTION],
                "tool_choice": {
                    "type": "allowed_tools",
                    "mode": "auto",
                    "tools": [{**NAMED, "name": "g"}],
                },
            },
            "tool_choice.tools.0.name",
            "invalid_value",
        ),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools.0.name", "invalid_value"),
        ({"stream_options": {"include_obfuscation": False}}, "stream_options", "invalid_value"),
        ({"metadata": {"k": 1}}, "metadata.k", "invalid_type"),
        ({"logit_bias": {"the": 1}}, "logit_bias", "invalid_value"),
        ({"n": 2}, "n", "unknown_parameter"),
        ({"frobnicate": 1}, "frobnicate", "unknown_parameter"),
    ],
)
def test_a_bad_body_is_refused(fields: dict[str, Any], param: str, code: str | None) -> None:
    assert refusal(fields)[:2] == (param, code or "invalid_value")
