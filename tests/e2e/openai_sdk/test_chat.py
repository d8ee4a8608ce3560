"""Chat in one piece, through the SDK."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai import BadRequestError, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.e2e.openai_sdk.target import LLM

CAPITAL: list[ChatCompletionMessageParam] = [
    {"role": "user", "content": "What is the capital of France? Answer in one word."}
]


def test_a_question_is_answered(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=LLM, messages=CAPITAL, temperature=0, max_tokens=16
    )

    [choice] = answer.choices
    assert answer.id.startswith("chatcmpl-")
    assert answer.object == "chat.completion"
    assert answer.model == LLM
    assert answer.created > 1_700_000_000
    assert (choice.index, choice.finish_reason, choice.logprobs) == (0, "stop", None)
    assert choice.message.role == "assistant"
    assert choice.message.refusal is None
    assert "Paris" in (choice.message.content or "")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens > 10
    assert 1 <= answer.usage.completion_tokens <= 16
    total = answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.total_tokens == total


def test_logprobs_and_refusal_are_there_even_if_null(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=LLM, messages=CAPITAL, max_tokens=1
    )

    [choice] = json.loads(raw.text)["choices"]
    assert choice["logprobs"] is None
    assert choice["message"]["refusal"] is None


def test_the_length_ends_an_answer(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=LLM,
        messages=[{"role": "user", "content": "Tell a story."}],
        max_completion_tokens=3,
        extra_body={"ignore_eos": True},
    )

    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


@pytest.mark.parametrize("stop", ["Paris", ["Berlin", "Paris"]])
def test_a_stop_text_ends_an_answer_and_is_no_part_of_it(
    client: OpenAI, stop: str | list[str]
) -> None:
    answer = client.chat.completions.create(
        model=LLM, messages=CAPITAL, temperature=0, max_tokens=16, stop=stop
    )

    assert answer.choices[0].finish_reason == "stop"
    assert "Paris" not in (answer.choices[0].message.content or "")


def test_two_choices_differ_and_the_prompt_is_counted_once(client: OpenAI) -> None:
    question: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Tell a story."}]
    one = client.chat.completions.create(model=LLM, messages=question, max_tokens=8)
    two = client.chat.completions.create(
        model=LLM, messages=question, n=2, max_tokens=8, temperature=1.5, seed=4
    )

    assert [choice.index for choice in two.choices] == [0, 1]
    assert two.choices[0].message.content != two.choices[1].message.content
    assert one.usage is not None
    assert two.usage is not None
    assert two.usage.prompt_tokens == one.usage.prompt_tokens
    assert two.usage.completion_tokens <= 16


def test_the_same_seed_gives_the_same_answer(client: OpenAI) -> None:
    texts = {
        client.chat.completions.create(
            model=LLM,
            messages=[{"role": "user", "content": "Tell a story."}],
            temperature=1.2,
            seed=7,
            max_tokens=12,
        )
        .choices[0]
        .message.content
        for _ in range(2)
    }

    assert len(texts) == 1


def test_log_probabilities_come_with_each_token(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=LLM, messages=CAPITAL, temperature=0, max_tokens=4, logprobs=True, top_logprobs=3
    )

    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert answer.usage is not None
    assert 1 <= len(logprobs.content) <= answer.usage.completion_tokens
    for token in logprobs.content:
        assert token.logprob <= 0
        assert token.bytes == list(token.token.encode())
        assert len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == pytest.approx(token.logprob, abs=1e-3)


def test_an_answer_is_held_to_a_json_schema(client: OpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "big": {"type": "boolean"}},
        "required": ["city", "big"],
        "additionalProperties": False,
    }

    answer = client.chat.completions.create(
        model=LLM,
        messages=[{"role": "user", "content": "Describe Paris as JSON."}],
        temperature=0,
        max_tokens=64,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema}},
    )

    city = json.loads(answer.choices[0].message.content or "")
    assert isinstance(city["city"], str)
    assert isinstance(city["big"], bool)
    assert len(city) == 2


def test_text_may_come_in_parts_and_from_a_developer(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=LLM,
        messages=[
            {"role": "developer", "content": "You answer in one word."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is the capital "},
                    {"type": "text", "text": "of France?"},
                ],
            },
        ],
        temperature=0,
        max_tokens=16,
    )

    assert "Paris" in (answer.choices[0].message.content or "")


def test_an_answer_is_sent_back_as_the_sdk_holds_it(client: OpenAI) -> None:
    answer = client.chat.completions.parse(model=LLM, messages=CAPITAL, temperature=0, max_tokens=8)
    held: Any = answer.choices[0].message
    question: ChatCompletionMessageParam = {"role": "user", "content": "And of Spain?"}

    for turn in (held, held.model_dump()):
        more = client.chat.completions.create(
            model=LLM, messages=[*CAPITAL, turn, question], temperature=0, max_tokens=8
        )
        assert more.choices[0].message.content


def test_an_image_is_refused_by_name(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(
            model=LLM,
            messages=[
                {
                    "role": "user",
                    "content": [{"type": "image_url", "image_url": {"url": "data:image/png,x"}}],
                }
            ],
        )

    assert "messages.0.content.0" in str(refused.value.param)


def test_tools_are_refused_where_the_model_has_none(client: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.chat.completions.create(
            model=LLM,
            messages=CAPITAL,
            tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
        )

    assert refused.value.param == "tools"


def test_the_tier_that_was_used_is_told(client: OpenAI) -> None:
    answer = client.chat.completions.create(
        model=LLM, messages=CAPITAL, max_tokens=1, service_tier="flex"
    )

    assert answer.service_tier == "flex"


def test_headers_tell_the_request_and_its_time(client: OpenAI) -> None:
    raw = client.chat.completions.with_raw_response.create(
        model=LLM, messages=CAPITAL, max_tokens=1
    )

    assert raw.request_id
    assert raw.headers["x-request-id"] == raw.request_id
    assert int(raw.headers["openai-processing-ms"]) >= 0
    assert raw.parse().choices


def test_a_beginning_that_was_seen_before_is_not_computed_again(client: OpenAI) -> None:
    story = "The old lighthouse keeper climbed the stairs. " * 20
    answers = [
        client.chat.completions.create(
            model=LLM, messages=[{"role": "user", "content": story + end}], max_tokens=1
        )
        for end in ("Why?", "Where?")
    ]

    usage = answers[1].usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    cached = usage.prompt_tokens_details.cached_tokens
    assert cached is not None
    assert 100 < cached < usage.prompt_tokens
