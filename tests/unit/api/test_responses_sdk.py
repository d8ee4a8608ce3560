"""OpenAI's SDK on /v1/responses: what it makes of answers, streams and failures, and sends back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import pytest
from openai import APIError, AsyncOpenAI, BadRequestError, NotFoundError
from openai.types.responses import Response
from pydantic import BaseModel

from synapse.api.asgi import AsgiApp
from synapse.domain.errors import EngineLost
from synapse.domain.inference import ChatMessage, Completion, Delta, ModelInput
from synapse.domain.job import Usage
from tests.factories import a_chat_model, a_pool
from tests.fakes import MemoryRegistry, ScriptedEngine
from tests.unit.api.calls import api_of
from tests.unit.application.world import CHAT, World

ARGUMENTS = '{"city":"Paris"}'
CALL = f'<tool_call>{{"name": "weather", "arguments": {ARGUMENTS}}}</tool_call>'
HELLO: Any = {"role": "user", "content": "Hello"}


class Weather(BaseModel):
    """The arguments of a function, or a form that an answer is held to."""

    city: str


TOOL: Any = {
    "type": "function",
    "name": "weather",
    "description": "How it is there.",
    "parameters": Weather.model_json_schema(),
    "strict": False,
}


class Talk:
    """A conversation with a deployment that writes what `texts` say, one after the other."""

    def __init__(self) -> None:
        self.texts = ["Hi"]
        self.reason = "stop"
        self.world = World(
            engine=ScriptedEngine(lambda _: self._next()),
            registry=MemoryRegistry([a_chat_model(CHAT, tool_parser="hermes")], [a_pool()]),
        )
        self.client = AsyncOpenAI(
            base_url="http://synapse/v1",
            api_key="sk",
            max_retries=0,
            http_client=httpx2.AsyncClient(
                transport=httpx2.ASGITransport(AsgiApp(api_of(self.world)))
            ),
        )

    def _next(self) -> Completion:
        text = self.texts.pop(0) if len(self.texts) > 1 else self.texts[0]
        return Completion(text, self.reason, Usage(3, 2, 1))

    async def plain(self, **more: Any) -> Any:
        """The answer as it came."""
        return await self.client.responses.create(model=CHAT, **{"input": "Hello", **more})

    async def parsed(self, **more: Any) -> Any:
        """The answer as the SDK parses it."""
        return await self.client.responses.parse(model=CHAT, **{"input": "Hello", **more})

    async def streamed(self, **more: Any) -> Any:
        """The final answer of a stream."""
        asked: Any = {"input": "Hello", **more}
        async with self.client.responses.stream(model=CHAT, **asked) as stream:
            return await stream.get_final_response()

    @property
    def asked(self) -> tuple[ChatMessage, ...]:
        """What the engine was asked last."""
        _, _, (request,) = self.world.engine.calls[-1]
        assert isinstance(request.input, ModelInput)
        return request.input.messages


@pytest.fixture
async def talk() -> AsyncIterator[Talk]:
    talk = Talk()
    yield talk
    await talk.client.close()


ways = pytest.mark.parametrize("way", [Talk.plain, Talk.parsed, Talk.streamed])
forms = pytest.mark.parametrize(
    "form", [lambda item: item, BaseModel.model_dump, lambda item: item.to_dict()]
)


@ways
async def test_a_text_is_read_as_output_text(talk: Talk, way: Any) -> None:
    response: Response = await way(talk, instructions="Be kind.", max_output_tokens=9)

    assert response.output_text == "Hi"
    assert (response.status, response.error) == ("completed", None)
    assert response.usage is not None
    assert response.usage.input_tokens_details.cached_tokens == 1
    assert response.usage.total_tokens == 5
    assert talk.asked == (ChatMessage("system", "Be kind."), ChatMessage("user", "Hello"))
    assert talk.world.slots.in_flight(CHAT) == 0


@ways
@forms
async def test_an_answer_is_a_part_of_the_next_input(
    talk: Talk, way: Any, form: Callable[[Any], Any]
) -> None:
    response = await way(talk)
    more = [HELLO, *map(form, response.output), HELLO]

    await talk.plain(input=more)

    assert talk.asked[1] == ChatMessage("assistant", "Hi")


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the SDK's own, of `parsed`
@pytest.mark.parametrize("way", [Talk.parsed, Talk.streamed])
@forms
async def test_an_answer_is_parsed_into_a_model(
    talk: Talk, way: Any, form: Callable[[Any], Any]
) -> None:
    talk.texts = [ARGUMENTS]

    response = await way(talk, text_format=Weather)
    assert response.output_parsed == Weather(city="Paris")

    await talk.plain(input=[HELLO, *map(form, response.output), HELLO])
    assert talk.asked[1] == ChatMessage("assistant", ARGUMENTS)


@ways
@forms
async def test_a_tool_is_called_and_its_output_answered(
    talk: Talk, way: Any, form: Callable[[Any], Any]
) -> None:
    talk.texts = ["Let me see." + CALL, "It rains."]
    response = await way(talk, tools=[TOOL])
    message, called = response.output
    assert (called.name, json.loads(called.arguments)) == ("weather", {"city": "Paris"})
    output = {"type": "function_call_output", "call_id": called.call_id, "output": "Rain"}

    last = await way(talk, tools=[TOOL], input=[HELLO, form(message), form(called), output])

    assert last.output_text == "It rains."
    assert talk.asked[1].content == "Let me see."
    assert talk.asked[1].tool_calls[0].arguments == ARGUMENTS
    assert talk.asked[2] == ChatMessage("tool", "Rain", tool_call_id=called.call_id)


@ways
async def test_a_tool_that_must_be_called_is(talk: Talk, way: Any) -> None:
    talk.texts = [ARGUMENTS]

    response = await way(
        talk,
        tools=[{**TOOL, "strict": True}],
        tool_choice={"type": "function", "name": "weather"},
    )

    [called] = response.output
    assert (called.type, called.arguments) == ("function_call", ARGUMENTS)


async def test_an_incomplete_answer_says_so(talk: Talk) -> None:
    talk.reason = "length"

    response = await talk.plain(max_output_tokens=2)
    events = [event async for event in await talk.plain(stream=True)]

    assert response.status == "incomplete"
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    assert events[-1].type == "response.incomplete"


async def test_the_events_of_a_stream_are_the_sdks(talk: Talk) -> None:
    talk.texts = ["Well." + CALL]

    events = [event async for event in await talk.plain(stream=True, tools=[TOOL])]

    kinds = list(dict.fromkeys(event.type for event in events))
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.completed",
    ]
    assert {type(event).__name__ for event in events}.isdisjoint({"BaseModel", "dict"})
    assert events[-1].response.model_extra["receipt"]["completion_tokens"] > 0


async def broken(*_: object) -> AsyncIterator[Delta]:
    """A generation whose worker is lost under way."""
    yield Delta("a", 1, 1)
    await asyncio.sleep(0.01)
    raise EngineLost("the worker went down")


async def test_what_ends_a_stream_is_raised_by_the_sdk(talk: Talk) -> None:
    talk.world.engine.stream = broken

    with pytest.raises(APIError, match="the worker went down") as raised:
        await talk.streamed()

    assert raised.value.code == "worker_lost"


async def test_a_refusal_names_its_parameter(talk: Talk) -> None:
    with pytest.raises(BadRequestError, match="send the whole conversation in input") as refused:
        await talk.plain(previous_response_id="resp_1")

    assert (refused.value.param, refused.value.code) == (
        "previous_response_id",
        "unsupported_parameter",
    )


async def test_nothing_is_stored(talk: Talk) -> None:
    response = await talk.plain()

    with pytest.raises(NotFoundError):
        await talk.client.responses.retrieve(response.id)
