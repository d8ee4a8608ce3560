"""POST /v1/chat/completions and /v1/completions, whole."""

from __future__ import annotations

import logging

import pytest

from synapse.api.openai.bodies import ChatCompletion, TextCompletion
from synapse.domain.inference import Choice, Completion, ModelInput, TokenLogprob
from synapse.domain.job import Usage
from synapse.ports import InferenceRequest
from tests.factories import a_chat_model, a_pool
from tests.fakes import MemoryRegistry, ScriptedEngine
from tests.unit.api.calls import api_of, call
from tests.unit.application.stepping import nothing_is_left
from tests.unit.application.world import CHAT, World

CHATS = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
HELLO = {"model": CHAT, "messages": [{"role": "user", "content": "hello there"}]}
PROMPT = {"model": CHAT, "prompt": "hello there"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
ROUTES = [(CHATS, HELLO), (COMPLETIONS, PROMPT)]


def a_world_for_tools(text: str) -> World:
    registry = MemoryRegistry([a_chat_model(CHAT, tool_parser="hermes")], [a_pool()])
    engine = ScriptedEngine(lambda _: Completion(text, "stop", Usage(1, 1)))
    return World(engine=engine, registry=registry)


def asked(world: World) -> ModelInput:
    """What the engine was asked last."""
    _, _, (request,) = world.engine.calls[-1]
    value = request.input
    assert isinstance(value, ModelInput)
    return value


async def test_a_chat_answer_has_openais_shape_and_headers() -> None:
    world = World()

    answer = await call(api_of(world), "POST", CHATS, HELLO)

    body = ChatCompletion.model_validate(answer.json)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert body.id.startswith("chatcmpl-")
    assert body.choices[0].message.content == "hello there"
    assert body.usage.total_tokens == 4
    assert answer.json["choices"][0]["message"]["refusal"] is None
    assert answer.json["choices"][0]["logprobs"] is None
    assert answer.headers["x-request-id"] == "req-1"
    assert int(answer.headers["openai-processing-ms"]) >= 0
    assert answer.headers["openai-version"] == "2020-10-01"
    assert "synapse-cache" not in answer.headers
    assert nothing_is_left(world)


async def test_a_completion_has_openais_shape() -> None:
    answer = await call(api_of(World()), "POST", COMPLETIONS, {**PROMPT, "echo": True})

    body = TextCompletion.model_validate(answer.json)
    assert body.id.startswith("cmpl-")
    assert [choice.text for choice in body.choices] == ["hello therehello there"]


async def test_what_is_asked_is_not_written_out_for_powertools_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)

    await call(api_of(World()), "POST", f"{CHATS}/", HELLO)  # the slash: the resolver looks at it

    assert "'body': <ChatRequest>}" in caplog.text
    assert "hello there" not in caplog.text


async def test_choices_are_numbered_by_prompt_and_sample() -> None:
    def twice(request: InferenceRequest) -> Completion:
        text = str(request.input.prompt)
        second = Choice(f"{text}1", "length")
        return Completion(f"{text}0", "stop", Usage(2, 2), others=(second,))

    world = World(engine=ScriptedEngine(twice))

    answer = await call(
        api_of(world), "POST", COMPLETIONS, {**PROMPT, "prompt": ["a", "b", "c"], "n": 2}
    )

    told = [(c["index"], c["text"], c["finish_reason"]) for c in answer.json["choices"]]
    texts = ["a0", "a1", "b0", "b1", "c0", "c1"]
    assert told == [(at, text, ["stop", "length"][at % 2]) for at, text in enumerate(texts)]
    assert answer.json["usage"]["total_tokens"] == 12
    assert nothing_is_left(world)


async def test_log_probabilities_come_in_the_shape_of_each_route() -> None:
    tokens = (TokenLogprob("hé", -0.5, (("hé", -0.5), ("�", -1.0))),)
    world = World(engine=ScriptedEngine(lambda _: Completion("hé", "stop", Usage(1, 1), tokens)))
    api = api_of(world)

    chat = await call(api, "POST", CHATS, {**HELLO, "logprobs": True, "top_logprobs": 2})
    text = await call(api, "POST", COMPLETIONS, {**PROMPT, "logprobs": 2})

    [token] = chat.json["choices"][0]["logprobs"]["content"]
    assert (token["token"], token["logprob"], token["bytes"]) == ("hé", -0.5, [104, 195, 169])
    assert [top["bytes"] for top in token["top_logprobs"]] == [[104, 195, 169], None]
    assert text.json["choices"][0]["logprobs"] == {
        "tokens": ["hé"],
        "token_logprobs": [-0.5],
        "top_logprobs": [{"hé": -0.5, "�": -1.0}],
        "text_offset": [0],
    }


async def test_a_called_tool_is_told_as_one() -> None:
    text = 'Well. <tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
    world = a_world_for_tools(text)

    answer = await call(api_of(world), "POST", CHATS, {**HELLO, "tools": [TOOL]})

    choice = ChatCompletion.model_validate(answer.json).choices[0]
    assert choice.message.content == "Well."
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    assert choice.message.tool_calls[0].id.startswith("call_")
    assert choice.message.tool_calls[0].function.arguments == '{"a": 1}'
    assert asked(world).tools == (TOOL,)


@pytest.mark.parametrize(
    "headers", [{}, {"x-stainless-retry-count": "0"}, {"Idempotency-Key": "k"}]
)
async def test_a_tool_that_must_be_called_is_called(headers: dict[str, str]) -> None:
    named = {"type": "function", "function": {"name": "f"}}
    world = a_world_for_tools('{"a": 1}')
    body = {**HELLO, "tools": [TOOL], "tool_choice": named}
    answer = await call(api_of(world), "POST", CHATS, body, headers=headers)

    message = answer.json["choices"][0]["message"]
    assert message["content"] is None
    assert message["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert asked(world).parameters["structured_outputs"] == {"json": {"type": "object"}}


async def test_an_answer_that_was_kept_is_given_again() -> None:
    world = World()
    api, headers = api_of(world), {"Synapse-Cache": "max-age=60"}
    body = {**HELLO, "temperature": 0}

    first = await call(api, "POST", CHATS, body, headers=headers)
    second = await call(api, "POST", CHATS, body, headers=headers)
    third = await call(api, "POST", CHATS, body)
    unsure = await call(api, "POST", CHATS, HELLO, headers=headers)

    told = [answer.headers.get("synapse-cache") for answer in (first, second, third, unsure)]
    assert told == ["miss", "hit", None, "bypass"]
    assert first.json["choices"] == second.json["choices"]
    assert len(world.engine.calls) == 3
