"""Chat and completions on a real Triton: what only a real model can show."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from synapse.adapters.triton.engine import TritonEngine
from synapse.api.openai.bodies import ChatCompletion, TextCompletion
from synapse.api.resolver import Api
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from tests.fakes import MemoryRegistry
from tests.unit.api.calls import api_of, call
from tests.unit.api.streams import events, opened, texts
from tests.unit.application.world import CHAT, World

CHATS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HELLO = {"model": CHAT, "messages": [{"role": "user", "content": "Say hello."}], "temperature": 0}
TEMPLATE = """{% if tools %}{{ tools | tojson }}{% endif %}{% for m in messages %}<|im_start|>\
{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}<|im_start|>assistant
{% if enable_thinking is defined and enable_thinking is false %}<think>

</think>

{% endif %}"""
PLACE = {"properties": {"city": {"enum": ["Rome", "Oslo"]}}, "required": ["city"]}
WEATHER = {
    "type": "object",
    "properties": {"place": {"$ref": "#/$defs/place"}, "days": {"enum": [1, 2]}},
    "required": ["place", "days"],
    "additionalProperties": False,
    "$defs": {"place": {"type": "object", "additionalProperties": False, **PLACE}},
}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "clock"}},
]


@pytest.fixture
def api(engine: TritonEngine, llm: ModelSpec, pool: Pool) -> Api:
    spec = replace(llm, chat_template=TEMPLATE, tool_parser="hermes")
    return api_of(World(engine=engine, registry=MemoryRegistry([spec], [pool])))


async def test_a_stream_of_a_real_model_says_what_the_whole_says(api: Api) -> None:
    body = {**HELLO, "max_tokens": 8, "logprobs": True, "top_logprobs": 2}

    whole = await call(api, "POST", CHATS, body)
    *told, done = await events(await opened(api, CHATS, body))

    choice = ChatCompletion.model_validate(whole.json).choices[0]
    assert texts(told) == {0: choice.message.content}
    assert (choice.finish_reason, done) == ("length", "[DONE]")
    assert told[-1]["choices"][0]["finish_reason"] == "length"
    assert choice.logprobs is not None
    assert "".join(token.token for token in choice.logprobs.content) == choice.message.content
    assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)


async def test_what_is_for_the_template_is_in_the_prompt(api: Api) -> None:
    body = {**HELLO, "max_tokens": 1}

    plain, switched, by_effort = [
        (await call(api, "POST", CHATS, {**body, **changes})).json["usage"]["prompt_tokens"]
        for changes in (
            {},
            {"chat_template_kwargs": {"enable_thinking": False}},
            {"reasoning_effort": "none"},
        )
    ]
    unread = await call(api, "POST", CHATS, {**body, "chat_template_kwargs": {"thinkin": False}})

    assert plain < switched == by_effort
    assert (unread.status, unread.error["param"]) == (400, "chat_template_kwargs")


async def test_a_share_of_nothing_always_takes_the_likeliest(api: Api) -> None:
    body = {**HELLO, "max_tokens": 4}
    greedy = await call(api, "POST", CHATS, body)
    shared = await call(api, "POST", CHATS, {**body, "temperature": 2, "top_p": 0})

    assert shared.json["choices"] == greedy.json["choices"]


async def test_token_ids_of_several_prompts_are_continued(api: Api) -> None:
    body = {"model": CHAT, "prompt": [[504, 3575, 282], [504]], "max_tokens": 2, "n": 2, "seed": 1}

    answer = await call(api, "POST", COMPLETIONS, body)

    found = TextCompletion.model_validate(answer.json)
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (4, 8)


@pytest.mark.parametrize(
    "choice", ["required", {"type": "function", "function": {"name": "weather"}}]
)
async def test_a_tool_that_must_be_called_is_called_by_its_schema(api: Api, choice: object) -> None:
    tools = TOOLS if choice != "required" else TOOLS[:1]
    body = {**HELLO, "tools": tools, "tool_choice": choice, "max_tokens": 80}

    answer = await call(api, "POST", CHATS, body)
    *told, _ = await events(await opened(api, CHATS, body))

    found = ChatCompletion.model_validate(answer.json).choices[0]
    assert found.finish_reason == "tool_calls"
    assert found.message.content is None
    assert found.message.tool_calls is not None
    [called] = found.message.tool_calls
    assert called.function.name == "weather"
    arguments: Any = json.loads(called.function.arguments)
    assert arguments["place"]["city"] in ("Rome", "Oslo")
    assert arguments["days"] in (1, 2)
    deltas = [chunk["choices"][0]["delta"] for chunk in told]
    pieces = [call for delta in deltas for call in delta.get("tool_calls", [])]
    streamed = "".join(piece["function"]["arguments"] for piece in pieces)
    assert streamed == called.function.arguments


async def test_an_answer_ends_where_the_context_does(api: Api) -> None:
    long = [{"role": "user", "content": "word " * 2000}]

    answer = await call(api, "POST", CHATS, {**HELLO, "messages": long, "ignore_eos": True})

    found = ChatCompletion.model_validate(answer.json)
    assert found.choices[0].finish_reason == "length"
    assert 2000 < found.usage.total_tokens <= 2048


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_model_cannot_read_is_told_in_openais_words(api: Api, stream: bool) -> None:
    long = {**HELLO, "messages": [{"role": "user", "content": "word " * 2500}], "stream": stream}

    too_long = await call(api, "POST", CHATS, long)

    assert (too_long.status, too_long.error["code"]) == (400, "context_length_exceeded")
    assert too_long.error["param"] == "messages"
