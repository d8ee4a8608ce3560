"""A streamed response says what the whole one says, event by event as OpenAI's SDK reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from synapse.api.errors import error_body
from synapse.api.openai.rendering import Heading
from synapse.api.openai.responses.bodies import ResponseBody
from synapse.api.openai.responses.requests import read_response
from synapse.api.openai.responses.schemas import ResponsesRequest
from synapse.api.openai.responses.telling import Items
from synapse.domain.inference import Choice, Completion, Delta, TokenLogprob
from synapse.domain.job import Usage
from tests.unit.openai.asking import SCHEMA
from tests.unit.openai.test_chunks import CALL, CHOICE, as_deltas

HEADING = Heading("resp_1", 1_700_000_000, "m", "fp_1")
FUNCTION = {"type": "function", "name": "f", "parameters": SCHEMA, "strict": False}
LOGPROBS = {"include": ["message.output_text.logprobs"], "top_logprobs": 1}
USAGE = Usage(3, 4, 1)
WELL = f"Well.\n{CALL}{CALL}So"


@cache
def sdk_event() -> TypeAdapter[Any]:
    """Made when it is asked for, and not by every process that loads these tests."""
    return TypeAdapter(ResponseStreamEvent)


def teller(**fields: Any) -> Items:
    body = ResponsesRequest.model_validate({"model": "m", "input": "Hello", **fields})
    return Items(body, read_response(body))


def whole(items: Items, choice: Choice) -> dict[str, Any]:
    completion = Completion(choice.text, choice.finish_reason, USAGE, choice.logprobs)
    return items.whole(HEADING, [completion])


def read(wire: bytes) -> list[dict[str, Any]]:
    """The events as a client reads them, after a look at their form."""
    told = []
    for block in wire.decode().removesuffix("\n\n").split("\n\n"):
        name, data = block.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        told.append(event)
    return told


def streamed(items: Items, deltas: Sequence[Delta]) -> list[dict[str, Any]]:
    """The events of a stream."""
    writer = items.writer(HEADING, lambda: False, tuple)
    pieces = [writer.begin(), *(writer.write(0, delta) for delta in deltas), writer.end()]
    return read(b"".join(pieces))


class Client:
    """Puts a stream together as clients do, and holds it to what they take for granted."""

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []
        self.open: dict[str, Any] | None = None
        self.text = ""
        self.logprobs: list[Any] = []

    def take(self, event: dict[str, Any]) -> None:
        kind = event["type"]
        if kind == "response.output_item.added":
            assert self.open is None
            assert event["output_index"] == len(self.items)
            assert event["item"]["status"] == "in_progress"
            self.open, self.text, self.logprobs = event["item"], "", []
            return
        assert self.open is not None
        assert event["output_index"] == len(self.items)
        if kind == "response.output_item.done":
            self._done(event["item"])
            return
        assert event["item_id"] == self.open["id"]
        if kind.endswith(".delta"):
            self.text += event["delta"]
            self.logprobs += event.get("logprobs", [])
        elif kind == "response.output_text.done":
            assert (event["text"], event["logprobs"]) == (self.text, self.logprobs)
        elif kind == "response.function_call_arguments.done":
            assert (event["arguments"], event["name"]) == (self.text, self.open["name"])
        elif kind == "response.content_part.added":
            assert (event["content_index"], event["part"]["text"]) == (0, "")
        else:
            assert kind == "response.content_part.done"
            assert event["part"]["text"] == self.text

    def _done(self, item: dict[str, Any]) -> None:
        assert self.open is not None
        assert (item["id"], item["type"]) == (self.open["id"], self.open["type"])
        if item["type"] == "message":
            [part] = item["content"]
            assert (part["text"], part["logprobs"]) == (self.text, self.logprobs)
        else:
            assert item["arguments"] == self.text
            assert (item["name"], item["call_id"]) == (self.open["name"], self.open["call_id"])
        self.items.append(item)
        self.open = None


def put_together(told: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The response that a client has once the stream is over."""
    assert [event["sequence_number"] for event in told] == list(range(len(told)))
    created, in_progress, *middle, last = told
    assert [created["type"], in_progress["type"]] == ["response.created", "response.in_progress"]
    assert created["response"]["status"] == "in_progress"
    client = Client()
    for event in middle:
        client.take(event)
    response: dict[str, Any] = last["response"]
    assert last["type"] == f"response.{response['status']}"
    assert response["output"] == client.items
    assert client.open is None
    return response


ASKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "logprobs": LOGPROBS,
    "tools": {"tools": [FUNCTION]},
    "required": {"tools": [FUNCTION], "tool_choice": "required"},
    "named": {"tools": [FUNCTION], "tool_choice": {"type": "function", "name": "f"}},
}


@given(ask=st.sampled_from(sorted(ASKS)), choice=CHOICE, size=st.integers(1, 9))
def test_a_stream_says_what_the_whole_says(ask: str, choice: Choice, size: int) -> None:
    items = teller(**ASKS[ask], stream=True)

    body = whole(items, choice)
    told = streamed(items, as_deltas(choice, size, USAGE))

    ended = {"completed_at"}
    response = put_together(told)
    assert {k: v for k, v in response.items() if k not in ended} == {
        k: v for k, v in body.items() if k not in ended
    }
    ResponseBody.model_validate(body)
    for event in told:
        sdk_event().validate_python(event, strict=True)
    Response.model_validate(body, strict=True)


@given(ask=st.sampled_from(["plain", "tools"]), choice=CHOICE, size=st.integers(1, 9))
def test_nothing_of_the_text_is_lost(ask: str, choice: Choice, size: int) -> None:
    told = streamed(teller(**ASKS[ask]), as_deltas(choice, size, Usage(1, 1)))

    response = Response.model_validate(put_together(told))
    if ask == "plain":
        assert response.output_text == choice.text
    calls = [item for item in response.output if item.type == "function_call"]
    assert len({item.id for item in response.output}) == len(response.output)
    assert len({call.call_id for call in calls}) == len(calls)
    assert "tool_call>" not in "".join(call.arguments for call in calls)


def test_text_and_calls_that_follow_each_other_are_items_in_their_order() -> None:
    body = whole(teller(tools=[FUNCTION]), Choice(WELL, "stop"))

    message, first, second, after = body["output"]
    assert (message["content"][0]["text"], after["content"][0]["text"]) == ("Well.", "So")
    assert [first["type"], second["type"]] == ["function_call"] * 2
    assert json.loads(first["arguments"]) == {"a": 1}
    assert first["call_id"].startswith("call_")
    assert first["id"].startswith("fc_")
    assert message["id"].startswith("msg_")
    assert {item["status"] for item in body["output"]} == {"completed"}


def test_an_answer_that_was_cut_off_is_incomplete_and_so_is_its_last_item() -> None:
    body = whole(teller(tools=[FUNCTION]), Choice(f"Well.{CALL}So", "length"))

    assert (body["status"], body["completed_at"]) == ("incomplete", None)
    assert body["incomplete_details"] == {"reason": "max_output_tokens"}
    assert [item["status"] for item in body["output"]] == ["completed", "completed", "incomplete"]


def test_an_answer_of_nothing_is_an_empty_message() -> None:
    body = whole(teller(), Choice("", "stop"))

    assert Response.model_validate(body).output_text == ""
    assert len(body["output"]) == 1


def test_a_call_is_told_as_it_is_written() -> None:
    deltas = [Delta(CALL[:34]), Delta(CALL[34:40]), Delta(CALL[40:]), Delta("", 3, 9, "stop")]

    told = streamed(teller(tools=[FUNCTION], stream=True), deltas)

    kinds = [event["type"].removeprefix("response.") for event in told]
    assert kinds[2] == "output_item.added"
    assert told[2]["item"]["name"] == "f"
    assert kinds.count("function_call_arguments.delta") >= 2
    assert kinds[-3:] == ["function_call_arguments.done", "output_item.done", "completed"]


def test_the_usage_is_told_at_the_end_in_the_words_of_the_route() -> None:
    told = streamed(teller(), [Delta("a", 3, 1), Delta("b", 3, 1, "stop", 2)])

    assert told[0]["response"]["usage"] is None
    assert told[-1]["response"]["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 5,
    }


def test_a_token_that_comes_after_all_text_is_told_too() -> None:
    late = TokenLogprob("�", -1.0)
    deltas = [
        Delta("a", 3, 1, logprobs=(TokenLogprob("a", -0.5),)),
        Delta("", 3, 1, "stop", 0, (late,)),
    ]

    told = streamed(teller(**LOGPROBS), deltas)

    [part] = put_together(told)["output"][0]["content"]
    assert [each["token"] for each in part["logprobs"]] == ["a", "�"]


def test_half_a_character_has_a_probability_and_no_bytes() -> None:
    tokens = (TokenLogprob("�", -1.0, (("é", -0.5),)), TokenLogprob("é", -0.5))
    body = whole(teller(**LOGPROBS), Choice("é", "stop", tokens))

    first, second = body["output"][0]["content"][0]["logprobs"]
    assert (first["bytes"], second["bytes"]) == ([], [195, 169])
    assert first["top_logprobs"] == [{"token": "é", "logprob": -0.5, "bytes": [195, 169]}]


ECHOED: dict[str, Any] = {
    "instructions": "Be kind.",
    "max_output_tokens": 5,
    "metadata": {"a": "b"},
    "parallel_tool_calls": False,
    "prompt_cache_key": "k",
    "safety_identifier": "s",
    "temperature": 0.5,
    "tool_choice": {"type": "function", "name": "f"},
    "tools": [FUNCTION],
    "top_p": 0.9,
    "user": "u",
}


def test_what_was_asked_is_told_again() -> None:
    body = whole(teller(**ECHOED), Choice("{}", "stop"))

    function = {**FUNCTION, "description": None}
    assert {name: body[name] for name in ECHOED} == {**ECHOED, "tools": [function]}
    Response.model_validate(body, strict=True)


def test_a_share_of_nothing_is_told_as_it_was_asked() -> None:
    assert whole(teller(top_p=0), Choice("", "stop"))["top_p"] == 0


@pytest.mark.parametrize(
    "format_",
    [
        {"type": "text"},
        {"type": "json_object"},
        {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True},
    ],
)
def test_the_form_is_told_again(format_: dict[str, Any]) -> None:
    body = whole(teller(text={"format": format_}), Choice("{}", "stop"))

    assert body["text"] == {"format": format_, "verbosity": "medium"}
    Response.model_validate(body, strict=True)


def test_what_nobody_asked_for_is_told_as_it_is() -> None:
    body = whole(teller(), Choice("a", "stop"))

    assert (body["store"], body["background"], body["truncation"]) == (False, False, "disabled")
    assert (body["tool_choice"], body["tools"], body["parallel_tool_calls"]) == ("auto", [], True)
    assert (body["error"], body["previous_response_id"], body["metadata"]) == (None, None, {})


@pytest.mark.parametrize("tier", ["auto", "default", "flex", "priority"])
def test_the_tier_is_told_as_it_was_served(tier: str) -> None:
    items = teller(service_tier=tier, stream=True)
    writer = items.writer(HEADING, lambda: True, tuple)

    begun = read(writer.begin())[0]["response"]
    writer.write(0, Delta("a", 1, 1, "stop"))
    [ended] = read(writer.end())

    whole_body = items.whole(HEADING, [Completion("a", "stop", USAGE)], keeps_tier=True)
    served = {"flex": "flex", "priority": "priority"}.get(tier, "default")
    assert whole_body["service_tier"] == served
    assert (begun["service_tier"], ended["response"]["service_tier"]) == (tier, served)


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (503, "server_error"),
        (500, "server_error"),
        (400, "invalid_prompt"),
        (429, "rate_limit_exceeded"),
    ],
)
def test_what_ends_an_answer_is_an_error_and_a_response_that_failed(status: int, code: str) -> None:
    writer = teller(stream=True).writer(HEADING, lambda: False, tuple)
    before = writer.begin() + writer.write(0, Delta("a", 1, 1))

    *_, error, failed = read(before + writer.failed(error_body(status, "no", code="c")))

    sdk_event().validate_python(error, strict=True)
    sdk_event().validate_python(failed, strict=True)
    assert (error["type"], error["code"], error["message"]) == ("error", "c", "no")
    assert set(error["error"]) == {"message", "type", "param", "code"}
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"] == {"code": code, "message": "no"}
    [item] = failed["response"]["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "a")
    assert failed["sequence_number"] == error["sequence_number"] + 1
