"""Streams through the SDK: what each chunk says, and in which order."""

from __future__ import annotations

import json
import time

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionChunk, ChatCompletionMessageParam

from tests.e2e.openai_sdk.target import LLM
from tests.patience import once_in_a_few

CAPITAL: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France? Answer in one word."}
]
STORY: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Tell a story."}]
ON_AND_ON = {"ignore_eos": True}


def _text(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def test_a_stream_is_one_answer_in_pieces(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=LLM, messages=CAPITAL, temperature=0, max_tokens=16, stream=True
    )
    chunks = list(stream)

    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert {chunk.created for chunk in chunks} == {chunks[0].created}
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk.model for chunk in chunks} == {LLM}
    assert chunks[0].choices[0].delta.role == "assistant"
    assert all(chunk.choices[0].delta.role is None for chunk in chunks[1:])
    assert "Paris" in _text(chunks)
    reasons = [chunk.choices[0].finish_reason for chunk in chunks]
    assert reasons == [None] * (len(chunks) - 1) + ["stop"]


def test_a_stream_says_what_the_answer_in_one_piece_says(client: OpenAI) -> None:
    whole = client.chat.completions.create(model=LLM, messages=STORY, temperature=0, max_tokens=12)
    stream = client.chat.completions.create(
        model=LLM, messages=STORY, temperature=0, max_tokens=12, stream=True
    )

    assert _text(list(stream)) == whole.choices[0].message.content


def test_the_length_ends_a_stream(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=LLM, messages=STORY, max_tokens=3, stream=True, extra_body=ON_AND_ON
    )

    assert list(stream)[-1].choices[0].finish_reason == "length"


def test_usage_comes_only_when_asked_for_and_then_last(client: OpenAI) -> None:
    plain = list(
        client.chat.completions.create(model=LLM, messages=STORY, max_tokens=3, stream=True)
    )
    asked = list(
        client.chat.completions.create(
            model=LLM,
            messages=STORY,
            max_tokens=3,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    assert all("usage" not in chunk.model_fields_set for chunk in plain)
    assert all(chunk.choices for chunk in plain)
    assert all("usage" in chunk.model_fields_set for chunk in asked)
    assert all(chunk.usage is None for chunk in asked[:-1])
    assert asked[-1].choices == []
    usage = asked[-1].usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens == 3


def test_done_is_the_last_event_and_events_are_not_cached(client: OpenAI) -> None:
    with client.chat.completions.with_streaming_response.create(
        model=LLM, messages=STORY, max_tokens=3, stream=True
    ) as raw:
        lines = [line for line in raw.iter_lines() if line.startswith("data: ")]

    assert raw.headers["content-type"].startswith("text/event-stream")
    assert raw.headers["cache-control"] == "no-cache"
    assert raw.headers["x-request-id"]
    assert lines[-1] == "data: [DONE]"
    assert all("choices" in json.loads(line.removeprefix("data: ")) for line in lines[:-1])


@pytest.mark.usefixtures("streams")
def test_two_choices_grow_side_by_side(client: OpenAI) -> None:
    def grow() -> bool:
        stream = client.chat.completions.create(
            model=LLM, messages=STORY, n=2, max_tokens=24, stream=True, extra_body=ON_AND_ON
        )
        order = [chunk.choices[0].index for chunk in stream if chunk.choices[0].delta.content]
        assert set(order) == {0, 1}
        last = {index: len(order) - 1 - order[::-1].index(index) for index in (0, 1)}
        return order.index(0) < last[1] and order.index(1) < last[0]

    assert once_in_a_few(grow)


@pytest.mark.usefixtures("streams")
def test_the_first_token_is_there_long_before_the_last(client: OpenAI) -> None:
    def is_there() -> bool:
        started = time.monotonic()
        arrivals = [
            time.monotonic() - started
            for _ in client.chat.completions.create(
                model=LLM, messages=STORY, max_tokens=64, stream=True, extra_body=ON_AND_ON
            )
        ]
        return len(arrivals) > 32 and arrivals[1] < arrivals[-1] / 2

    assert once_in_a_few(is_there)


def test_the_sdks_own_stream_helper_collects_the_answer(client: OpenAI) -> None:
    with client.chat.completions.stream(
        model=LLM, messages=CAPITAL, temperature=0, max_tokens=16
    ) as stream:
        kinds = {event.type for event in stream}
        answer = stream.get_final_completion()

    assert {"chunk", "content.delta", "content.done"} <= kinds
    assert "Paris" in (answer.choices[0].message.content or "")


def test_log_probabilities_come_with_the_chunks(client: OpenAI) -> None:
    stream = client.chat.completions.create(
        model=LLM, messages=STORY, temperature=0, max_tokens=4, stream=True, logprobs=True
    )
    tokens = [
        token
        for chunk in stream
        for choice in chunk.choices
        if choice.logprobs and choice.logprobs.content
        for token in choice.logprobs.content
    ]

    assert 1 <= len(tokens) <= 4
    assert all(token.logprob <= 0 for token in tokens)


def test_a_completion_streams_text(client: OpenAI) -> None:
    chunks = list(
        client.completions.create(
            model=LLM,
            prompt="Once upon a time",
            max_tokens=4,
            stream=True,
            stream_options={"include_usage": True},
        )
    )

    assert {chunk.object for chunk in chunks} == {"text_completion"}
    assert {chunk.id for chunk in chunks} == {chunks[0].id}
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1])
    assert chunks[-2].choices[0].finish_reason == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 4
