"""Completions and models, through the SDK."""

from __future__ import annotations

import pytest
from openai import OpenAI

from tests.e2e.openai_sdk.target import EMBEDDER, LLM


def test_a_prompt_is_continued(client: OpenAI) -> None:
    answer = client.completions.create(
        model=LLM, prompt="The future of AI is", extra_body={"ignore_eos": True}
    )

    [choice] = answer.choices
    assert answer.id.startswith("cmpl-")
    assert answer.object == "text_completion"
    assert choice.text
    assert choice.logprobs is None
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 16
    assert choice.finish_reason == "length"


def test_two_prompts_with_two_choices_each_are_four_choices_in_order(client: OpenAI) -> None:
    answer = client.completions.create(
        model=LLM,
        prompt=["Red, green,", "One, two, three,"],
        n=2,
        max_tokens=4,
        echo=True,
        temperature=0,
    )

    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    starts = [choice.text.split(",")[0] for choice in answer.choices]
    assert starts == ["Red", "Red", "One", "One"]


@pytest.mark.parametrize("prompt", [[504, 3575, 282], [[504, 3575, 282], [504]]])
def test_a_prompt_may_be_token_ids(client: OpenAI, prompt: list[int] | list[list[int]]) -> None:
    answer = client.completions.create(model=LLM, prompt=prompt, max_tokens=2)

    batches = prompt if isinstance(prompt[0], list) else [prompt]
    assert len(answer.choices) == len(batches)
    assert answer.usage is not None
    assert answer.usage.prompt_tokens >= len(batches)


def test_log_probabilities_have_the_old_shape(client: OpenAI) -> None:
    answer = client.completions.create(
        model=LLM, prompt="One, two,", max_tokens=3, temperature=0, logprobs=2
    )

    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens
    assert logprobs.token_logprobs is not None
    assert logprobs.top_logprobs is not None
    assert logprobs.text_offset is not None
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.text_offset)
    assert all(len(top) >= 1 for top in logprobs.top_logprobs)
    assert answer.choices[0].text.startswith(logprobs.tokens[0])


def test_models_are_listed_and_found_by_name(client: OpenAI) -> None:
    listed = {model.id: model for model in client.models.list()}

    assert {LLM, EMBEDDER} <= set(listed)
    assert client.models.retrieve(LLM) == listed[LLM]
    assert listed[LLM].object == "model"
    assert listed[LLM].created > 0
    assert listed[LLM].owned_by
