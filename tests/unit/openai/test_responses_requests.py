"""The body of /v1/responses is read as the chat that says the same."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.api.openai.calls import CLOSE
from synapse.api.openai.responses.schemas import ResponsesRequest
from synapse.domain.inference import ChatMessage, ToolCall
from synapse.domain.job import SlaTier
from tests.unit.openai.asking import OTHER, SCHEMA, TOOL, chat, parameters, response

FUNCTION = {"type": "function", "name": "f", "parameters": SCHEMA}
G = {"type": "function", "name": "g"}


def messages(*items: dict[str, Any], **fields: Any) -> tuple[ChatMessage, ...]:
    return response(input=list(items), **fields).inputs[0].messages


def said(role: str, content: Any, **fields: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **fields}


def called(call_id: str, name: str = "f", **fields: Any) -> dict[str, Any]:
    return {
        "type": "function_call", "call_id": call_id, "name": name, "arguments": "{}", **fields
    }  # fmt: skip


def gave(call_id: str, output: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": output, **fields}


def test_a_text_is_what_the_user_says() -> None:
    assert response(input="Hi").inputs[0].messages == (ChatMessage("user", "Hi"),)


def test_a_content_of_no_parts_is_an_empty_one() -> None:
    found = messages(said("user", []), called("c"), gave("c", []))

    assert (found[0].content, found[2].content) == ("", "")


def test_instructions_come_first() -> None:
    found = messages(said("developer", "b"), said("user", "c"), instructions="a")

    assert found == (
        ChatMessage("system", "a"),
        ChatMessage("system", "b"),
        ChatMessage("user", "c"),
    )


@pytest.mark.parametrize("instructions", [None, ""])
def test_no_instructions_are_no_message(instructions: str | None) -> None:
    assert len(response(instructions=instructions).inputs[0].messages) == 1


def test_messages_may_have_their_type_and_text_in_parts() -> None:
    parts = [{"type": "input_text", "text": "a"}, {"type": "text", "text": "b"}]

    assert messages(said("user", parts, type="message")) == (ChatMessage("user", "a\nb"),)


def test_what_was_answered_is_a_turn_as_clients_hold_it() -> None:
    text: dict[str, Any] = {
        "type": "output_text", "text": "Hi", "annotations": [], "logprobs": [], "parsed": None
    }  # fmt: skip
    message = said("assistant", [text], type="message", id="msg_1", status="completed", phase=None)
    refused = said("assistant", [{"type": "refusal", "refusal": "No"}], phase="final_answer")
    call = called("c1", id="fc_1", status="completed", parsed_arguments=None)

    found = messages(
        said("user", "a"), message, said("user", "b"), refused, said("user", "c"), call
    )

    assert found[1] == ChatMessage("assistant", "Hi")
    assert found[3] == ChatMessage("assistant", "No")
    assert found[5] == ChatMessage("assistant", tool_calls=(ToolCall("c1", "f", "{}"),))


def test_an_output_may_name_its_tool() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": "1"}

    assert response(input=[call, {**output, "name": "f"}]) == response(input=[call, output])


def test_null_is_nothing_in_what_clients_send_back_whatever_its_name() -> None:
    text = {"type": "output_text", "text": "Hi", "moderation": None}

    found = messages(said("assistant", [text], channel=None), called("c", caller=None))

    (call,) = messages(called("c"))
    assert found == (ChatMessage("assistant", "Hi", tool_calls=call.tool_calls),)


def test_a_text_after_a_call_is_of_the_same_turn() -> None:
    texts = said("assistant", "One."), said("assistant", "Two.")

    found = messages(texts[0], called("c1"), texts[1], called("c2"), said("user", "And?"), *texts)

    calls = (ToolCall("c1", "f", "{}"), ToolCall("c2", "f", "{}"))
    assert found == (
        ChatMessage("assistant", "One.\nTwo.", tool_calls=calls),
        ChatMessage("user", "And?"),
        ChatMessage("assistant", "One."),
        ChatMessage("assistant", "Two."),
    )


def test_calls_and_the_text_before_them_are_one_turn() -> None:
    found = messages(
        said("user", "a"),
        said("assistant", "Let me see."),
        called("c1"),
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        called("c2", "g"),
        gave("c1", "one"),
        gave("c2", [{"type": "input_text", "text": "two"}]),
        called("c3"),
    )

    first, second = ToolCall("c1", "f", "{}"), ToolCall("c2", "g", "{}")
    assert found[1:] == (
        ChatMessage("assistant", "Let me see.", tool_calls=(first, second)),
        ChatMessage("tool", "one", tool_call_id="c1"),
        ChatMessage("tool", "two", tool_call_id="c2"),
        ChatMessage("assistant", tool_calls=(ToolCall("c3", "f", "{}"),)),
    )


def test_what_the_assistant_said_twice_stays_two_turns() -> None:
    assert len(messages(said("assistant", "a"), said("assistant", "b"))) == 2


SAME: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"client_metadata": {"turn_id": "1"}, "reasoning": {"summary": "auto"}}, {}),
    ({"max_output_tokens": 5}, {"max_completion_tokens": 5}),
    ({"temperature": 0, "top_p": 0.5}, {"temperature": 0, "top_p": 0.5}),
    (
        {"seed": 1, "stop": "a", "logit_bias": {"5": 1}, "presence_penalty": 1},
        {"seed": 1, "stop": "a", "logit_bias": {"5": 1}, "presence_penalty": 1},
    ),
    (
        {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "ignore_eos": True, "min_tokens": 2},
        {"top_k": 5, "min_p": 0.1, "repetition_penalty": 1.1, "ignore_eos": True, "min_tokens": 2},
    ),
    ({"guided_regex": "[a-z]"}, {"guided_regex": "[a-z]"}),
    ({"reasoning": {"effort": "low"}}, {"reasoning_effort": "low"}),
    ({"chat_template_kwargs": {"a": 1}}, {"chat_template_kwargs": {"a": 1}}),
    ({"text": {"format": {"type": "text"}}}, {"response_format": {"type": "text"}}),
    ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
    (
        {"text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA}}},
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "a", "schema": SCHEMA},
            }
        },
    ),
    (
        {"include": ["message.output_text.logprobs"], "top_logprobs": 2},
        {"logprobs": True, "top_logprobs": 2},
    ),
    ({"include": ["message.output_text.logprobs"]}, {"logprobs": True}),
    ({"include": ["reasoning.encrypted_content"], "top_logprobs": 0}, {}),
    ({"tools": [FUNCTION, G]}, {"tools": [TOOL, OTHER]}),
    ({"tools": [FUNCTION], "tool_choice": "none"}, {"tools": [TOOL], "tool_choice": "none"}),
    (
        {"tools": [FUNCTION, G], "tool_choice": "required"},
        {"tools": [TOOL, OTHER], "tool_choice": "required"},
    ),
    (
        {"tools": [FUNCTION, G], "tool_choice": {"type": "function", "name": "f"}},
        {
            "tools": [TOOL, OTHER],
            "tool_choice": {"type": "function", "function": {"name": "f"}},
        },
    ),
    (
        {
            "tools": [FUNCTION, G],
            "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [G]},
        },
        {"tools": [OTHER], "tool_choice": "required"},
    ),
    (
        {"tools": [FUNCTION], "parallel_tool_calls": False},
        {"tools": [TOOL], "parallel_tool_calls": False},
    ),
]


@pytest.mark.parametrize(("of_responses", "of_chat"), SAME)
def test_the_model_is_asked_the_same_as_by_chat(
    of_responses: dict[str, Any], of_chat: dict[str, Any]
) -> None:
    found, expected = response(**of_responses), chat(**of_chat)

    assert found.inputs == expected.inputs
    assert found.told.top_logprobs == expected.told.top_logprobs
    assert (found.told.calling is None) is (expected.told.calling is None)


def test_one_call_at_a_time_ends_with_the_call() -> None:
    found = parameters(response(tools=[FUNCTION], parallel_tool_calls=False, stop=["a"]))

    assert found["stop"] == ["a", CLOSE]


def test_where_things_stand_is_known() -> None:
    form = {"type": "json_object"}
    found = response(
        text={"format": form}, stream=True, service_tier="flex", user="u", prompt_cache_key="k"
    )

    assert (found.length_at, found.prompt_at) == ("max_output_tokens", "input")
    assert found.effort_at == "reasoning.effort"
    assert (found.told.form_from, found.told.tier, found.tier) == (
        "text.format",
        "flex",
        SlaTier.BRONZE,
    )
    assert (found.stream, found.affinity) == (True, "k")


def test_null_is_as_good_as_nothing() -> None:
    optional = set(ResponsesRequest.model_fields) - {"model", "input"}

    assert response(**dict.fromkeys(optional)) == response()


def test_a_tool_may_be_strict_though_it_need_not_be_called() -> None:
    ask = response(tools=[{**FUNCTION, "strict": True}])

    function = {"name": "f", "parameters": SCHEMA, "strict": True}
    assert ask.inputs[0].tools == ({"type": "function", "function": function},)
    assert "structured_outputs" not in ask.inputs[0].parameters
