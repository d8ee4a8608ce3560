"""Tools and their calls, in the different manners in which templates want them."""

from __future__ import annotations

import json
import sys

import pytest

from synapse.adapters.triton.chat import prompt_of, render, supports_tools
from synapse.domain.errors import InvalidInput
from synapse.domain.inference import ChatMessage, ToolCall
from synapse.domain.model import ModelSpec
from tests.factories import a_chat_model, a_model
from tests.unit.triton.asking import ask
from tests.unit.triton.test_chat import smollm2

WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {}}}
CALL = ToolCall("call-1", "weather", '{"city": "Zürich"}')
QUESTION = ChatMessage("user", "Rain?")
TALK = (QUESTION, ChatMessage("assistant", tool_calls=(CALL,)))

TOOLS = "{% if tools %}{{ tools | tojson }}\n{% endif %}"
# As Qwen's and Hermes' templates do: arguments as an object, content as a text.
OBJECTS = TOOLS + (
    "{% for m in messages %}{{ m.role }}: {{ m.content + '' }}"
    "{% for call in m.tool_calls %}<{{ call.type }} {{ call.id }} "
    "{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}>"
    "{% endfor %}{{ '\n' }}{% endfor %}"
)
# As DeepSeek's do: arguments joined as text, and a call is a turn without content.
TEXTS = TOOLS + (
    "{% for m in messages %}{{ m.role }}: "
    "{% if m.content is none %}{% for call in m.tool_calls %}"
    "{{ call.function.name + '=' + call.function.arguments }}{% endfor %}"
    "{% else %}{{ m.content }}{% endif %}{{ '\n' }}{% endfor %}"
)


def with_template(template: str) -> ModelSpec:
    return a_chat_model("m", chat_template=template)


def test_tools_reach_a_template_that_tells_of_them() -> None:
    shown = render(with_template(OBJECTS), [QUESTION], [WEATHER])

    assert shown == f"{json.dumps([WEATHER])}\nuser: Rain?\n"


def test_the_tools_of_a_request_are_rendered_into_its_prompt() -> None:
    request = ask(None, messages=(QUESTION,), tools=(WEATHER,))

    assert '"weather"' in prompt_of(with_template(OBJECTS), request)


def test_whether_tools_are_supported_is_found_out_by_trying() -> None:
    fails_on_tools = "{% if tools %}{{ raise_exception('no tools') }}{% endif %}"

    assert supports_tools(with_template(OBJECTS))
    assert supports_tools(with_template(TEXTS))
    assert not supports_tools(with_template("{{ messages[0].content }}{# tools #}"))
    assert not supports_tools(with_template("{% if tools %}{{ 'some' }}{% endif %}"))
    assert not supports_tools(with_template(fails_on_tools))
    assert not supports_tools(with_template("{% if %}"))
    assert not supports_tools(smollm2())
    assert not supports_tools(a_model("m"))


def test_tools_for_a_model_that_would_not_hear_of_them_are_refused() -> None:
    with pytest.raises(InvalidInput, match="was not made for tools") as caught:
        render(smollm2(), [QUESTION], [WEATHER])

    assert caught.value.param == "tools"


def test_calls_that_would_vanish_from_the_conversation_are_refused() -> None:
    with pytest.raises(InvalidInput, match="was not made for calls of tools") as caught:
        render(smollm2(), TALK)

    assert caught.value.param == "messages"


def test_arguments_are_an_object_and_content_a_text_where_a_template_takes_them() -> None:
    shown = render(with_template(OBJECTS), TALK)

    call = '{"name": "weather", "arguments": {"city": "Zürich"}}'
    assert shown == f"user: Rain?\nassistant: <function call-1 {call}>\n"


def test_arguments_are_text_and_content_nothing_where_a_template_needs_it() -> None:
    shown = render(with_template(TEXTS), TALK)

    assert shown == 'user: Rain?\nassistant: weather={"city": "Zürich"}\n'


def test_a_turn_with_content_and_calls_keeps_both() -> None:
    turn = ChatMessage("assistant", "Let me see.", tool_calls=(CALL,))

    shown = render(with_template(OBJECTS), [QUESTION, turn])

    assert "assistant: Let me see.<function call-1 " in shown


def test_arguments_that_are_no_json_are_shown_as_they_are() -> None:
    for arguments in ('{"city": ', '{"city": "\\ud83d"}', "[" * 5000):
        turn = ChatMessage("assistant", tool_calls=(ToolCall("c", "weather", arguments),))

        shown = render(with_template(OBJECTS), [QUESTION, turn])

        assert f'"arguments": {json.dumps(arguments)}' in shown


def test_a_letter_of_two_surrogates_is_a_letter() -> None:
    turn = ChatMessage("assistant", tool_calls=(ToolCall("c", "f", '{"a": "\\ud83d\\ude00"}'),))

    assert '"arguments": {"a": "😀"}' in render(with_template(OBJECTS), [QUESTION, turn])


def test_arguments_that_are_too_deep_for_a_template_are_the_callers() -> None:
    depth = sys.getrecursionlimit() * 2 // 5
    deep = ToolCall("c", "f", "[" * depth + "]" * depth)
    nested = TOOLS + (
        "{% macro show(value) %}{% if value is iterable and value is not string %}"
        "{% for each in value %}{{ show(each) }}{% endfor %}{% else %}{{ value }}{% endif %}"
        "{% endmacro %}{% for m in messages %}{{ m.content + '' }}{% for call in m.tool_calls %}"
        "{{ call.function.name }}{{ call.function.arguments.value }}"
        "{{ show(call.function.arguments) }}{% endfor %}{% endfor %}"
    )

    with pytest.raises(InvalidInput, match="nested too deep") as caught:
        render(with_template(nested), [QUESTION, ChatMessage("assistant", tool_calls=(deep,))])

    assert caught.value.param == "messages"


def test_results_come_in_the_order_of_their_calls() -> None:
    def called(*ids: str) -> ChatMessage:
        return ChatMessage("assistant", tool_calls=tuple(ToolCall(i, "f", "{}") for i in ids))

    def result(call_id: str) -> ChatMessage:
        return ChatMessage("tool", f"of {call_id}", tool_call_id=call_id)

    talk = [
        called("b", "a", "c"),
        *map(result, ("c", "unknown", "a", "b")),
        called("a", "d"),
        *map(result, ("d", "a")),
        QUESTION,
        *map(result, ("d", "a")),
    ]
    template = OBJECTS + "{% for m in messages %}{{ m.tool_call_id or '-' }} {% endfor %}"

    shown = render(with_template(template), talk).rpartition("\n")[2]

    assert shown.split() == "- b unknown a c - a d - d a".split()  # noqa: SIM905


def test_a_tools_answer_says_which_tool_and_which_call() -> None:
    template = OBJECTS + "{{ messages[-1].name }} {{ messages[-1].tool_call_id }}"
    answer = ChatMessage("tool", "dry", tool_call_id="call-1")

    assert render(with_template(template), [*TALK, answer]).endswith("weather call-1")


def test_what_a_message_has_not_is_not_there_at_all() -> None:
    template = "{{ messages[0] | tojson }}"

    shown = render(with_template(template), [QUESTION])

    assert json.loads(shown) == {"role": "user", "content": "Rain?"}
