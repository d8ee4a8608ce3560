"""What each parameter of a body becomes."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.api.openai.requests import told_tier
from synapse.domain.errors import InvalidRequest
from synapse.domain.inference import ChatMessage, ToolCall
from synapse.domain.job import SlaTier
from tests.unit.openai.asking import (
    OTHER,
    SCHEMA,
    TOOL,
    chat,
    completion,
    parameters,
    response,
)


def test_nothing_given_means_the_engines_own_defaults() -> None:
    assert parameters(chat()) == {"max_tokens": None}  # what is left of the context
    assert parameters(completion()) == {"max_tokens": 16}
    assert chat().tier is SlaTier.SILVER
    assert not chat().stream


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"temperature": 0}, {"temperature": 0}),
        ({"top_p": 0.5, "top_k": 5, "min_p": 0.1}, {"top_p": 0.5, "top_k": 5, "min_p": 0.1}),
        ({"seed": -7}, {"seed": -7}),
        (
            {"presence_penalty": -1, "frequency_penalty": 2},
            {"presence_penalty": -1, "frequency_penalty": 2},
        ),
        ({"repetition_penalty": 1.1}, {"repetition_penalty": 1.1}),
        ({"ignore_eos": True, "min_tokens": 3}, {"ignore_eos": True, "min_tokens": 3}),
        ({"logit_bias": {"50": -100}}, {"logit_bias": {"50": -100}}),
        ({"logit_bias": {}}, {}),
        ({"stop": "\n"}, {"stop": ["\n"]}),
        ({"stop": ["a", "b"]}, {"stop": ["a", "b"]}),
        ({"stop": None}, {}),
        ({"max_tokens": 5}, {"max_tokens": 5}),
        ({"guided_regex": "[a-z]+"}, {"structured_outputs": {"regex": "[a-z]+"}}),
        ({"guided_json": SCHEMA}, {"structured_outputs": {"json": SCHEMA}}),
        (
            {"structured_outputs": {"choice": ["a", "b"]}},
            {"structured_outputs": {"choice": ["a", "b"]}},
        ),
        (
            {
                "user": "u",
                "safety_identifier": "s",
                "metadata": {"k": "v"},
                "prompt_cache_key": "p",
            },
            {},
        ),
    ],
)
@pytest.mark.parametrize("ask", [chat, completion])
def test_a_parameter_reaches_the_engine_under_its_own_name(
    ask: Any, given: dict[str, Any], sent: dict[str, Any]
) -> None:
    without = parameters(ask())

    assert parameters(ask(**given)) == {**without, **sent}


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"max_completion_tokens": 7}, {"max_tokens": 7}),
        ({"max_completion_tokens": 7, "max_tokens": 7}, {"max_tokens": 7}),
        ({"logprobs": True}, {"logprobs": 0}),
        ({"logprobs": True, "top_logprobs": 4}, {"logprobs": 4}),
        ({"response_format": {"type": "text"}}, {}),
        (
            {"response_format": {"type": "json_object"}},
            {"structured_outputs": {"json_object": True}},
        ),
        (
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "n", "schema": SCHEMA},
                }
            },
            {"structured_outputs": {"json": SCHEMA}},
        ),
    ],
)
def test_what_only_chat_has_reaches_the_engine_in_its_terms(
    given: dict[str, Any], sent: dict[str, Any]
) -> None:
    assert parameters(chat(**given)) == {"max_tokens": None, **sent}


def test_an_answer_may_have_as_many_ends_as_an_editor_names() -> None:
    ends = [f"<{at}>" for at in range(32)]

    assert parameters(completion(stop=ends))["stop"] == ends


def test_where_a_prefix_ends_has_no_effect() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    parts = [{"type": "text", "text": "Hello", **mark}]

    ask = chat(messages=[{"role": "user", "content": parts, **mark}], tools=[{**TOOL, **mark}])

    assert ask.inputs == chat(tools=[TOOL]).inputs


def test_where_a_prefix_ends_has_no_effect_in_openais_words_either() -> None:
    mark = {"prompt_cache_breakpoint": {"mode": "explicit"}}
    of_chat = [{"role": "user", "content": [{"type": "text", "text": "Hello", **mark}]}]
    of_response = [{"role": "user", "content": [{"type": "input_text", "text": "Hello", **mark}]}]

    assert chat(messages=of_chat).inputs == chat().inputs
    assert response(input=of_response).inputs == response().inputs


def test_messages_become_the_turns_that_models_know() -> None:
    called = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "developer", "content": "Be kind."},
        {"role": "user", "name": "ann", "content": [{"type": "text", "text": t} for t in "ab"]},
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "c1", "content": "5"},
        {"role": "assistant", "refusal": "No."},
        {"role": "user", "content": []},
    ]

    assert chat(messages=turns).inputs[0].messages == (
        ChatMessage("system", "Be kind."),
        ChatMessage("user", "a\nb", name="ann"),
        ChatMessage("assistant", tool_calls=(ToolCall("c1", "f", "{}"),)),
        ChatMessage("tool", "5", tool_call_id="c1"),
        ChatMessage("assistant", "No."),
        ChatMessage("user", ""),
    )


@pytest.mark.parametrize(
    ("prompt", "inputs"),
    [
        ("a", ["a"]),
        (["a", "b"], ["a", "b"]),
        ([1, 2], [(1, 2)]),
        ([[1], [2, 3]], [(1,), (2, 3)]),
    ],
)
def test_a_prompt_is_a_text_or_tokens_or_a_list_of_either(prompt: Any, inputs: list[Any]) -> None:
    ask = completion(prompt=prompt, n=2)

    assert [each.prompt for each in ask.inputs] == inputs
    assert {each.samples for each in ask.inputs} == {2}


@pytest.mark.parametrize(
    ("asked", "tier", "told"),
    [
        (None, SlaTier.SILVER, None),
        ("auto", SlaTier.SILVER, "default"),
        ("default", SlaTier.SILVER, "default"),
        ("flex", SlaTier.BRONZE, "flex"),
        ("priority", SlaTier.GOLD, "default"),
    ],
)
def test_a_service_tier_is_one_of_ours(asked: str | None, tier: SlaTier, told: str | None) -> None:
    ask = chat(service_tier=asked)

    assert (ask.tier, ask.told.tier) == (tier, told)


def test_priority_is_told_only_where_it_was_asked_for_and_kept() -> None:
    priority, flex, unasked = (chat(service_tier=tier) for tier in ("priority", "flex", None))

    assert (told_tier(priority, True), told_tier(priority, False)) == ("priority", "default")
    assert (told_tier(flex, True), told_tier(unasked, True)) == ("flex", None)


@pytest.mark.parametrize(
    ("keys", "affinity"),
    [
        ({}, ""),
        ({"user": "u-1"}, "u-1"),
        ({"user": "u-1", "safety_identifier": "s-1"}, "s-1"),
        ({"user": "u-1", "safety_identifier": "s-1", "prompt_cache_key": "k-1"}, "k-1"),
    ],
)
def test_a_caller_s_own_key_keeps_requests_together(keys: dict[str, str], affinity: str) -> None:
    assert chat(**keys).affinity == affinity


def test_a_tool_that_must_be_called_is_a_form_the_answer_is_held_to() -> None:
    named = chat(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "f"}})
    required = chat(tools=[TOOL, OTHER], tool_choice="required")

    assert parameters(named)["structured_outputs"] == {"json": SCHEMA}
    branches = parameters(required)["structured_outputs"]["json"]["anyOf"]
    assert [branch["properties"]["name"] for branch in branches] == [
        {"enum": ["f"]},
        {"enum": ["g"]},
    ]
    assert branches[0]["properties"]["arguments"] == SCHEMA
    assert required.inputs[0].tools[0]["function"] == TOOL["function"]


@pytest.mark.parametrize("choice", [None, "auto", "required"])
def test_a_tool_may_be_strict_whether_or_not_it_is_sure_to_be_called(choice: str | None) -> None:
    strict = {"type": "function", "function": {"name": "f", "strict": True}}

    ask = chat(tools=[strict], tool_choice=choice)

    assert ask.inputs[0].tools == (strict,)
    assert ("structured_outputs" in parameters(ask)) == (choice == "required")


def test_the_references_of_a_tools_schema_move_with_it() -> None:
    inner = {"$defs": {"x": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/x"}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": inner}}

    schema = parameters(chat(tools=[tool, OTHER], tool_choice="required"))["structured_outputs"]

    whole = schema["json"]
    assert whole["anyOf"][0]["properties"]["arguments"] == {"$ref": "#/$defs/f"}
    assert whole["$defs"]["f"]["properties"]["a"] == {"$ref": "#/$defs/f/$defs/x"}


def test_a_model_that_calls_one_tool_at_most_is_stopped_after_it() -> None:
    ask = chat(tools=[TOOL], parallel_tool_calls=False, stop="!")

    assert parameters(ask)["stop"] == ["!", "</tool_call>"]
    with pytest.raises(InvalidRequest, match="stop: at most 31"):
        chat(tools=[TOOL], parallel_tool_calls=False, stop=list("0123456789abcdef" * 2))


def test_tools_that_may_not_be_called_are_not_told_of() -> None:
    ask = chat(tools=[TOOL], tool_choice="none")

    assert ask.told.calling is None
    assert not ask.inputs[0].tools


def test_what_is_for_the_template_goes_there_and_not_to_the_engine() -> None:
    ask = chat(chat_template_kwargs={"enable_thinking": False}, reasoning_effort="low")

    (value,) = ask.inputs
    assert (value.variables, value.effort) == ({"enable_thinking": False}, "low")
    assert value.parameters == chat().inputs[0].parameters


@pytest.mark.parametrize(
    "fields",
    [
        {"chat_template_kwargs": {}, "reasoning_effort": None},
        {"chat_template_kwargs": None},
    ],
)
def test_nothing_for_the_template_is_nothing(fields: dict[str, Any]) -> None:
    assert chat(**fields).inputs == chat().inputs


def test_an_effort_may_be_said_twice() -> None:
    ask = chat(chat_template_kwargs={"reasoning_effort": "low"}, reasoning_effort="low")

    assert ask.inputs[0].effort == "low"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "f"}}])
def test_where_a_call_is_required_there_is_no_text_to_hold_to_a_form(choice: Any) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "array"}}}

    ask = chat(tools=[TOOL], tool_choice=choice, response_format=form)

    assert ask.inputs == chat(tools=[TOOL], tool_choice=choice).inputs


def test_where_none_may_be_called_the_text_is_held_to_its_form() -> None:
    form = {"type": "json_object"}

    ask = chat(tools=[TOOL], tool_choice="none", response_format=form)

    assert parameters(ask)["structured_outputs"] == {"json_object": True}


def test_tools_that_may_be_called_beside_a_form_are_refused_with_what_to_do() -> None:
    with pytest.raises(InvalidRequest, match=r"that response_format holds .* one more tool, or"):
        chat(tools=[TOOL], response_format={"type": "json_object"})
