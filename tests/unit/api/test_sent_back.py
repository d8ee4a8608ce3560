"""What OpenAI's SDK holds of an answer can be sent back as a turn of the conversation."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from openai import AsyncOpenAI, pydantic_function_tool
from pydantic import BaseModel

from synapse.api.asgi import AsgiApp
from synapse.domain.inference import ChatMessage, Completion, ModelInput
from synapse.domain.job import Usage
from tests.factories import a_chat_model, a_pool
from tests.fakes import MemoryRegistry, ScriptedEngine
from tests.unit.api.calls import api_of, call
from tests.unit.application.world import CHAT, World

CHATS = "/v1/chat/completions"
ARGUMENTS = '{"city":"Paris"}'
CALL = f'{{"name": "Weather", "arguments": {ARGUMENTS}}}'
A_CALL = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
HELLO: Any = {"role": "user", "content": "Hello"}
UNUSED: list[tuple[dict[str, Any], str]] = [
    ({"annotations": []}, "annotations"),
    ({"annotations": [{"type": "url_citation"}]}, "annotations"),
    ({"parsed": {"city": "Paris"}}, "parsed"),
    ({"provider_specific_fields": {"refusal": None}}, "provider_specific_fields"),
    ({"reasoning": "Let me see."}, "reasoning"),
    ({"reasoning_content": "Let me see."}, "reasoning_content"),
]
EMPTY = ("annotations", "parsed", "provider_specific_fields", "reasoning", "reasoning_content")


class Weather(BaseModel):
    """The arguments of a function, or a form that an answer is held to."""

    city: str


class Talk:
    """A conversation with a deployment that writes what `text` says."""

    def __init__(self) -> None:
        self.text = "Hi"
        self.world = World(
            engine=ScriptedEngine(lambda _: Completion(self.text, "stop", Usage(1, 1))),
            registry=MemoryRegistry([a_chat_model(CHAT, tool_parser="hermes")], [a_pool()]),
        )
        self.api = api_of(self.world)
        self.client = AsyncOpenAI(
            base_url="http://synapse/v1",
            api_key="sk",
            max_retries=0,
            http_client=httpx2.AsyncClient(transport=httpx2.ASGITransport(AsgiApp(self.api))),
        )

    async def streamed(self, **more: Any) -> Any:
        """The final message of a stream."""
        async with self.client.chat.completions.stream(
            model=CHAT, messages=[HELLO], **more
        ) as stream:
            return (await stream.get_final_completion()).choices[0].message

    async def whole(self, **more: Any) -> Any:
        """The message of an answer that was parsed."""
        answer = await self.client.chat.completions.parse(model=CHAT, messages=[HELLO], **more)
        return answer.choices[0].message

    async def plain(self, **more: Any) -> Any:
        """The message of an answer as it came."""
        answer = await self.client.chat.completions.create(model=CHAT, messages=[HELLO], **more)
        return answer.choices[0].message

    async def asked_with(self, *turns: Any) -> tuple[ChatMessage, ...]:
        """What the engine is asked when these turns follow."""
        await self.client.chat.completions.create(model=CHAT, messages=[HELLO, *turns])
        _, _, (request,) = self.world.engine.calls[-1]
        assert isinstance(request.input, ModelInput)
        return request.input.messages


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    talk = Talk()
    yield talk
    await talk.client.close()


ways = pytest.mark.parametrize("way", [Talk.plain, Talk.whole, Talk.streamed])
forms = pytest.mark.parametrize(
    "form", [lambda message: message, BaseModel.model_dump, lambda message: message.to_dict()]
)


@ways
@forms
async def test_an_answer_is_a_turn_of_the_next_request(
    talk: Talk, way: Any, form: Callable[[Any], Any]
) -> None:
    message = await way(talk)

    turns = await talk.asked_with(form(message), HELLO)

    assert turns[1] == ChatMessage("assistant", "Hi")


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the SDK's own, of `parsed`
@pytest.mark.parametrize("way", [Talk.whole, Talk.streamed])
@forms
async def test_an_answer_in_a_form_is_a_turn_of_the_next_request(
    talk: Talk, way: Any, form: Callable[[Any], Any]
) -> None:
    talk.text = ARGUMENTS
    message = await way(talk, response_format=Weather)
    assert message.parsed == Weather(city="Paris")

    turns = await talk.asked_with(form(message), HELLO)

    assert turns[1] == ChatMessage("assistant", ARGUMENTS)


@ways
@forms
async def test_a_call_is_a_turn_of_the_next_request(
    talk: Talk, way: Any, form: Callable[[Any], Any]
) -> None:
    talk.text = CALL
    tool = pydantic_function_tool(Weather)
    message = await way(talk, tools=[tool], tool_choice="required")
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "Rain"}

    turns = await talk.asked_with(form(message), result)

    assert [each.name for each in turns[1].tool_calls] == ["Weather"]
    assert turns[1].tool_calls[0].arguments == ARGUMENTS


@pytest.mark.parametrize(("fields", "param"), UNUSED)
async def test_what_clients_keep_with_an_answer_has_no_effect(
    talk: Talk, fields: dict[str, Any], param: str
) -> None:
    turns = await talk.asked_with({"role": "assistant", "content": "Hi", **fields}, HELLO)

    assert turns[1] == ChatMessage("assistant", "Hi")


@pytest.mark.parametrize("role", ["system", "user", "assistant"])
async def test_null_is_as_good_as_nothing_in_any_turn(talk: Talk, role: str) -> None:
    turns = await talk.asked_with({"role": role, "content": "x", **dict.fromkeys(EMPTY)})

    assert turns[1] == ChatMessage(role, "x")


@pytest.mark.parametrize("content", [{"content": []}, {"content": None}, {"content": ""}, {}])
async def test_an_answer_without_text_is_a_turn_too(talk: Talk, content: dict[str, Any]) -> None:
    turns = await talk.asked_with({"role": "assistant", **content}, HELLO)

    assert turns[1] == ChatMessage("assistant", "")


@pytest.mark.parametrize(("fields", "param"), UNUSED)
@pytest.mark.parametrize("role", ["system", "developer", "user", "tool"])
async def test_other_roles_have_nothing_of_the_assistants(
    talk: Talk, role: str, fields: dict[str, Any], param: str
) -> None:
    turn = {"role": role, "content": "x", **fields}
    if role == "tool":
        turn["tool_call_id"] = "c"

    answer = await call(talk.api, "POST", CHATS, {"model": CHAT, "messages": [turn]})

    assert (answer.status, answer.error["param"]) == (400, f"messages.0.{param}")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"annotations": "x"}, "messages.0.annotations"),
        ({"tool_calls": [{**A_CALL, "index": "x"}]}, "messages.0.tool_calls.0.index"),
        ({"tool_calls": [{**A_CALL, "number": 1}]}, "messages.0.tool_calls.0.number"),
        ({"audio": {"id": "a"}}, "messages.0.audio"),
        ({"function_call": {"name": "f", "arguments": ""}}, "messages.0.function_call"),
    ],
)
async def test_the_assistants_turns_are_not_of_any_form(
    talk: Talk, fields: dict[str, Any], param: str
) -> None:
    turn = {"role": "assistant", "content": "x", **fields}

    answer = await call(talk.api, "POST", CHATS, {"model": CHAT, "messages": [turn]})

    assert (answer.status, answer.error["param"]) == (400, param)
