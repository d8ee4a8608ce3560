"""Responses, whole and streamed, through the SDK."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import APIStatusError, BadRequestError, OpenAI
from openai.types.responses import Response
from pydantic import BaseModel, Field

from tests.e2e.openai_sdk.target import LLM

CAPITAL = "What is the capital of France? Answer in one word."


class City(BaseModel):
    """What an answer is held to."""

    city: str = Field(max_length=12)
    big: bool


def test_a_question_is_answered(client: OpenAI) -> None:
    raw = client.responses.with_raw_response.create(
        model=LLM, input=CAPITAL, temperature=0, max_output_tokens=16, metadata={"a": "b"}
    )

    answer = raw.parse()
    Response.model_validate(json.loads(raw.text), strict=True)
    assert answer.id.startswith("resp_")
    assert (answer.status, answer.model, answer.metadata) == ("completed", LLM, {"a": "b"})
    assert "Paris" in answer.output_text
    assert answer.usage is not None
    assert answer.usage.input_tokens > 10
    assert 1 <= answer.usage.output_tokens <= 16
    assert float(raw.headers["x-synapse-cost-usd"]) >= 0


def test_a_response_says_what_a_chat_says(client: OpenAI) -> None:
    of_chat = client.chat.completions.create(
        model=LLM,
        messages=[
            {"role": "system", "content": "You answer in one word."},
            {"role": "user", "content": CAPITAL},
        ],
        temperature=0,
        max_tokens=8,
    )

    answer = client.responses.create(
        model=LLM,
        instructions="You answer in one word.",
        input=CAPITAL,
        temperature=0,
        max_output_tokens=8,
    )

    assert answer.output_text == of_chat.choices[0].message.content
    assert answer.usage is not None
    assert of_chat.usage is not None
    assert answer.usage.input_tokens == of_chat.usage.prompt_tokens


def test_an_answer_is_a_part_of_the_next_input(client: OpenAI) -> None:
    items: list[Any] = [{"role": "user", "content": CAPITAL}]
    first = client.responses.create(model=LLM, input=items, temperature=0, max_output_tokens=8)

    items += first.output
    items.append({"role": "user", "content": "And of Spain?"})
    second = client.responses.create(model=LLM, input=items, temperature=0, max_output_tokens=8)

    assert second.output_text
    assert second.usage is not None
    assert first.usage is not None
    assert second.usage.input_tokens > first.usage.input_tokens + first.usage.output_tokens


def test_an_answer_is_held_to_a_model(client: OpenAI) -> None:
    answer = client.responses.parse(
        model=LLM,
        input="Describe Paris as JSON.",
        text_format=City,
        temperature=0,
        max_output_tokens=64,
    )

    assert isinstance(answer.output_parsed, City)


def test_the_events_of_a_stream_are_put_together_to_the_whole(client: OpenAI) -> None:
    with client.responses.stream(
        model=LLM, input=CAPITAL, temperature=0, max_output_tokens=16
    ) as stream:
        events = list(stream)
        final = stream.get_final_response()

    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(len(numbers)))
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert text == final.output_text
    assert "Paris" in text
    assert final.usage is not None
    assert final.usage.output_tokens >= 1


def test_an_answer_that_fills_its_tokens_is_incomplete(client: OpenAI) -> None:
    answer = client.responses.create(
        model=LLM, input="Tell a story.", max_output_tokens=3, extra_body={"ignore_eos": True}
    )

    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.usage is not None
    assert answer.usage.output_tokens == 3


def test_log_probabilities_come_with_each_token(client: OpenAI) -> None:
    answer = client.responses.create(
        model=LLM,
        input=CAPITAL,
        temperature=0,
        max_output_tokens=4,
        include=["message.output_text.logprobs"],
        top_logprobs=3,
    )

    [message] = answer.output
    assert message.type == "message"
    [part] = message.content
    assert part.type == "output_text"
    assert part.logprobs
    for token in part.logprobs:
        assert token.logprob <= 0
        assert token.bytes == list(token.token.encode())
        assert len(token.top_logprobs) == 3


def test_what_would_have_to_be_stored_is_refused(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.responses.create(model=LLM, input=CAPITAL, previous_response_id="resp_1")

    assert refused.value.param == "previous_response_id"
    assert "send the whole conversation in input" in refused.value.message


def test_nothing_is_there_to_be_asked_for(client: OpenAI) -> None:
    with pytest.raises(APIStatusError) as refused:
        client.responses.retrieve("resp_1")

    assert (refused.value.status_code, refused.value.code) == (404, "route_not_found")
