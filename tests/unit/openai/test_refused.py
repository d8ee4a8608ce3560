"""What cannot be honoured is refused, by name; what changes nothing is not."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from synapse.api.errors import validation_error
from synapse.api.openai.requests import Ask, check_model
from synapse.api.openai.unsupported import CHANGES_NOTHING, UnsupportedParameter
from synapse.domain.errors import InvalidRequest
from synapse.domain.model import ModelSpec, Task
from tests.factories import a_chat_model, a_model
from tests.unit.openai.asking import HELLO, SCHEMA, TOOL, chat, completion, parameters


def refusal(is_chat: bool, fields: dict[str, Any]) -> tuple[str | None, str]:
    """The param and code of a refusal, wherever it is found."""
    try:
        chat(**fields) if is_chat else completion(**fields)
    except ValidationError as error:
        message, param, code = validation_error(error.errors())
    except InvalidRequest as error:
        message, param, code = error.message, error.param, error.code
    else:
        pytest.fail("it was not refused")
    assert param is None or message.startswith(f"{param}:")
    return param, code


NEUTRAL = [(name, value) for name, values in CHANGES_NOTHING.items() for value in (*values, None)]


@pytest.mark.parametrize(("name", "value"), NEUTRAL)
def test_a_value_that_changes_nothing_is_accepted(name: str, value: Any) -> None:
    if name == "include_obfuscation":
        fields: dict[str, Any] = {"stream": True, "stream_options": {name: value}}
    elif name in ("file", "image_url", "input_audio"):
        fields = {
            "messages": [{**HELLO[0], "content": [{"type": "text", "text": "x", name: value}]}]
        }
    else:
        fields = {name: value}

    if name == "suffix":
        assert parameters(completion(**fields)) == parameters(completion())
    else:
        assert parameters(chat(**fields)) == parameters(chat())


TOO_MUCH: list[tuple[dict[str, Any], str]] = [
    ({"audio": {"voice": "x"}}, "audio"),
    ({"bad_words": ["x"]}, "bad_words"),
    ({"function_call": "auto"}, "function_call"),
    ({"functions": [{"name": "f"}]}, "functions"),
    ({"include_stop_str_in_output": True}, "include_stop_str_in_output"),
    ({"length_penalty": 2}, "length_penalty"),
    ({"modalities": ["text", "audio"]}, "modalities"),
    ({"moderation": {"model": "m"}}, "moderation"),
    ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
    ({"priority": 3}, "priority"),
    ({"prompt_cache_options": {"mode": "explicit"}}, "prompt_cache_options"),
    ({"prompt_cache_retention": "24h"}, "prompt_cache_retention"),
    ({"skip_special_tokens": False}, "skip_special_tokens"),
    ({"stop_token_ids": [1]}, "stop_token_ids"),
    ({"store": True}, "store"),
    ({"store": 0}, "store"),
    (
        {"stream": True, "stream_options": {"include_obfuscation": True}},
        "stream_options.include_obfuscation",
    ),
    ({"use_beam_search": True}, "use_beam_search"),
    ({"verbosity": "low"}, "verbosity"),
    ({"web_search_options": {}}, "web_search_options"),
    ({"messages": [{"role": "user", "content": "x", "audio": {"id": "a"}}]}, "messages.0.audio"),
    (
        {
            "messages": [
                *HELLO,
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "x"},
                        {"type": "image_url", "image_url": {"url": "u"}},
                    ],
                },
            ]
        },
        "messages.1.content.1.type",
    ),
]


@pytest.mark.parametrize(("fields", "param"), TOO_MUCH)
def test_what_cannot_be_honoured_is_refused_by_name(fields: dict[str, Any], param: str) -> None:
    assert refusal(True, fields) == (param, "unsupported_parameter")


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"suffix": "x"}, "suffix", "unsupported_parameter"),
        ({"best_of": 2}, "best_of", "unsupported_parameter"),
        ({"echo": True, "logprobs": 1}, "echo", "unsupported_parameter"),
        ({"echo": True, "prompt": [1, 2]}, "echo", "unsupported_parameter"),
        ({"logprobs": 6}, "logprobs", "invalid_value"),
        ({"logprobs": True}, "logprobs", "invalid_type"),
        ({"prompt": []}, "prompt", "invalid_value"),
        ({"prompt": [[]]}, "prompt.0", "invalid_value"),
        ({"prompt": [-1]}, "prompt.0", "invalid_value"),
        ({"prompt": ["a", 1]}, "prompt.1", "invalid_type"),
        ({"prompt": None}, "prompt", "invalid_type"),
        ({"messages": HELLO}, "messages", "unknown_parameter"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
    ],
)
def test_a_bad_completion_body_is_refused(fields: dict[str, Any], param: str, code: str) -> None:
    assert refusal(False, fields) == (param, code)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages.0.role", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "invalid_value"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": [{"text": "x"}]}]},
            "messages.0.content.0.type",
            "missing_required_parameter",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages.0.content.0.text",
            "invalid_value",
        ),
        (
            {"messages": [{"role": "tool", "content": "x"}]},
            "messages.0.tool_call_id",
            "invalid_value",
        ),
        (
            {"messages": [{"role": "user", "content": "x", "tool_call_id": "c"}]},
            "messages.0.tool_call_id",
            "invalid_value",
        ),
        ({"prompt": "x"}, "prompt", "unknown_parameter"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 9}, "n", "invalid_value"),
        ({"n": True}, "n", "invalid_type"),
        ({"top_p": -0.1}, "top_p", "invalid_value"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"stop": 5}, "stop", "invalid_type"),
        ({"stop": [""]}, "stop.0", "invalid_value"),
        ({"stop": [str(each) for each in range(33)]}, "stop", "invalid_value"),
        ({"logit_bias": {"the": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"1": 101}}, "logit_bias.1", "invalid_value"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_value"),
        (
            {"response_format": {"type": "json_schema"}},
            "response_format.json_schema",
            "invalid_value",
        ),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        (
            {"response_format": {"type": "json_object"}, "guided_regex": "a"},
            "response_format",
            "invalid_value",
        ),
        (
            {"structured_outputs": {"regex": "a", "choice": ["b"]}},
            "structured_outputs",
            "invalid_value",
        ),
        ({"tools": [TOOL], "response_format": {"type": "json_object"}}, "tools", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"parallel_tool_calls": False}, "parallel_tool_calls", "invalid_value"),
        (
            {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice.function.name",
            "invalid_value",
        ),
        ({"tools": [TOOL], "tool_choice": "maybe"}, "tool_choice", "invalid_value"),
        (
            {"tools": [{"type": "custom", "function": {"name": "f"}}]},
            "tools.0.type",
            "invalid_value",
        ),
        (
            {"tools": [{"type": "function", "function": {"name": "a b"}}]},
            "tools.0.function.name",
            "invalid_value",
        ),
        (
            {
                "tools": [
                    {"type": "function", "function": {"name": "f", "parameters": {"d": "\ud800"}}}
                ]
            },
            "tools.0.function.parameters",
            "invalid_value",
        ),
        ({"guided_json": {"minimum": float("nan")}}, "guided_json", "invalid_value"),
        ({"service_tier": "gold"}, "service_tier", "invalid_value"),
        ({"metadata": {"k": 1}}, "metadata.k", "invalid_type"),
        ({"reasoning_effort": "much"}, "reasoning_effort", "invalid_value"),
        (
            {"reasoning_effort": "low", "chat_template_kwargs": {"reasoning_effort": "high"}},
            "reasoning_effort",
            "invalid_value",
        ),
        ({"chat_template_kwargs": []}, "chat_template_kwargs", "invalid_type"),
        *(
            ({"chat_template_kwargs": {name: "x"}}, "chat_template_kwargs", "invalid_value")
            for name in ("messages", "tools", "add_generation_prompt", "bos_token", "eos_token")
        ),
        ({"chat_template_kwargs": {"a": "x" * 16_384}}, "chat_template_kwargs", "invalid_value"),
        ({"chat_template_kwargs": {"a": "\ud800"}}, "chat_template_kwargs", "invalid_value"),
        ({"frobnicate": 1}, "frobnicate", "unknown_parameter"),
    ],
)
def test_a_bad_chat_body_is_refused(fields: dict[str, Any], param: str, code: str) -> None:
    assert refusal(True, fields) == (param, code)


@pytest.mark.parametrize(
    ("ask", "spec", "param"),
    [
        (chat(), a_model("m", task=Task.EMBED), "model"),
        (completion(), a_model("m", task=Task.EMBED), "model"),
        (chat(), a_model("m"), "model"),
        (chat(tools=[TOOL]), a_chat_model("m"), "tools"),
        (chat(n=8), a_chat_model("m", slots=4), "n"),
        (completion(prompt=["a"] * 5), a_model("m", slots=4), "prompt"),
    ],
)
def test_what_this_model_cannot_do_is_refused(ask: Ask, spec: ModelSpec, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_model(ask, spec)

    assert refused.value.param == param


def test_a_model_made_for_tools_takes_them() -> None:
    check_model(chat(tools=[TOOL]), a_chat_model("m", tool_parser="hermes"))
    check_model(completion(), a_model("m"))


WITHOUT_EFFECT: list[dict[str, Any]] = [
    *({name: "[a-z]+"} for name in ("stop", "guided_regex", "guided_grammar")),
    *({name: 0} for name in ("logprobs", "top_k")),
    *({name: 0.5} for name in ("presence_penalty", "frequency_penalty", "repetition_penalty")),
    {"stop": ["a", "b"]},
    {"guided_json": SCHEMA},
    {"guided_choice": ["a"]},
    {"structured_outputs": {"regex": "a"}},
    {"logit_bias": {"5": 1}},
    {"min_p": 0.1},
    {"min_tokens": 1},
    {"ignore_eos": True},
    {"n": 2},
    {"n": 2, "best_of": 2},
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fields", WITHOUT_EFFECT)
def test_what_has_no_effect_on_a_model_of_texts_is_refused(
    fields: dict[str, Any], stream: bool
) -> None:
    ask = completion(**fields, stream=stream)

    with pytest.raises(UnsupportedParameter) as refused:
        check_model(ask, a_model("m", task=Task.TEXT))

    assert refused.value.param == next(iter(fields))
    assert refused.value.message.startswith(f"{refused.value.param}: has no effect on model 'm'")
    check_model(ask, a_model("m", task=Task.GENERATE))


@pytest.mark.parametrize(
    "fields",
    [
        {"max_tokens": 5, "temperature": 0.5, "top_p": 0.9, "seed": 7, "user": "u", "echo": True},
        {"stream": True, "stream_options": {"include_usage": True}},
        {"n": 1, "best_of": 1, "stop": [], "logit_bias": {}, "guided_json": None},
        {"presence_penalty": 0, "frequency_penalty": 0.0, "repetition_penalty": 1.0},
        {"top_k": -1, "min_p": 0, "min_tokens": 0, "ignore_eos": False},
        {"prompt": ["a", "b"]},
    ],
)
def test_what_clients_always_send_is_not(fields: dict[str, Any]) -> None:
    check_model(completion(**fields), a_model("m", task=Task.TEXT))
