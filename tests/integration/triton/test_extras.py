"""What a request may ask for besides its text, of a real Triton."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from synapse.adapters.triton.engine import TritonEngine
from synapse.domain.errors import InvalidInput
from synapse.domain.inference import Completion
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest
from tests.unit.triton.asking import ask, outcome

PROMPT = "The future of AI is"
PROMPT_IDS = (504, 1774, 282, 5646, 314)
EMOJIS = "<|im_start|>user\nOnly emojis<|im_end|>\n<|im_start|>assistant\n🎉🚀👩"


async def completion(
    engine: TritonEngine, llm: ModelSpec, pool: Pool, request: InferenceRequest
) -> Completion:
    found = await outcome(engine, llm, pool, request)
    assert isinstance(found, Completion), found
    return found


async def test_seeded_samples_differ_and_can_be_had_again(
    engine: TritonEngine, llm: ModelSpec, pool: Pool
) -> None:
    parameters = {"temperature": 1.5, "max_tokens": 8, "seed": 7, "ignore_eos": True}

    first, again = [
        await completion(engine, llm, pool, ask(PROMPT, samples=3, parameters=parameters))
        for _ in range(2)
    ]

    assert len({choice.text for choice in first.choices}) == 3
    assert [choice.text for choice in first.choices] == [choice.text for choice in again.choices]
    assert (first.usage.prompt_tokens, first.usage.completion_tokens) == (5, 24)


@pytest.mark.parametrize("top", [0, 3])
async def test_greedy_tokens_are_the_likeliest_and_add_up_to_the_text(
    engine: TritonEngine, llm: ModelSpec, pool: Pool, top: int
) -> None:
    parameters = {"temperature": 0, "max_tokens": 6, "logprobs": top}

    found = await completion(engine, llm, pool, ask(PROMPT, parameters=parameters))

    assert "".join(token.token for token in found.logprobs) == found.text
    assert all(len(token.top) == top for token in found.logprobs)
    for token in found.logprobs:
        assert token.logprob <= 0
        assert token.top[:1] in ((), ((token.token, token.logprob),))
        assert sum(math.exp(logprob) for _, logprob in token.top) <= 1.0001


async def test_an_unlikely_choice_is_told_apart_from_the_likeliest(
    engine: TritonEngine, llm: ModelSpec, pool: Pool
) -> None:
    parameters = {"temperature": 2.0, "max_tokens": 24, "logprobs": 1, "seed": 3}

    found = await completion(engine, llm, pool, ask(PROMPT, parameters=parameters))

    assert "".join(token.token for token in found.logprobs) == found.text
    unlikely = [token for token in found.logprobs if token.token != token.top[0][0]]
    assert unlikely, "at this temperature some token is not the likeliest"
    assert all(token.logprob < token.top[0][1] for token in unlikely)


async def test_tokens_that_are_part_of_a_character_are_told_whole(
    engine: TritonEngine, llm: ModelSpec, pool: Pool
) -> None:
    parameters = {"temperature": 0, "max_tokens": 12, "logprobs": 2, "ignore_eos": True}
    request = ask(EMOJIS, parameters=parameters)

    whole = await completion(engine, llm, pool, request)
    parts = [part async for part in engine.stream(llm, pool, request)]

    streamed = [token for part in parts for token in part.logprobs]
    assert "".join(token.token for token in streamed) == whole.text
    assert tuple(streamed) == whole.logprobs


async def test_a_repeated_prompt_comes_from_the_cache(
    engine: TritonEngine, llm: ModelSpec, pool: Pool
) -> None:
    prompt = "Seven swans swam south. " * 20
    request = ask(prompt, parameters={"max_tokens": 1})

    first = await completion(engine, llm, pool, request)
    again = await completion(engine, llm, pool, request)
    parts = [part async for part in engine.stream(llm, pool, request)]

    # The last token is always read: it is what the next one is drawn from.
    told = again.usage.cached_tokens
    assert first.usage.cached_tokens == 0
    assert told == again.usage.prompt_tokens - 1
    assert [part.cached_tokens for part in parts if part.cached_tokens is not None] == [told]


async def test_token_ids_are_continued_like_their_text(
    engine: TritonEngine, llm: ModelSpec, pool: Pool
) -> None:
    parameters = {"temperature": 0, "max_tokens": 8}

    by_text = await completion(engine, llm, pool, ask(PROMPT, parameters=parameters))
    by_ids = await completion(engine, llm, pool, ask(PROMPT_IDS, parameters=parameters))

    assert by_ids.text == by_text.text
    assert by_ids.usage.prompt_tokens == 5


@pytest.mark.parametrize("ids", [(504, 10**6), (504, -1)])
async def test_ids_that_are_not_in_the_vocabulary_are_refused(
    engine: TritonEngine, llm: ModelSpec, pool: Pool, ids: tuple[int, ...]
) -> None:
    found = await outcome(engine, llm, pool, ask(ids))

    assert isinstance(found, InvalidInput)
    assert found.param == "prompt"
    assert "not in the vocabulary" in found.message


async def test_a_worker_is_asked_for_nothing_that_its_catalogue_does_not_promise(
    engine: TritonEngine, llm: ModelSpec, pool: Pool
) -> None:
    plain = replace(llm, extensions=frozenset())

    found = await completion(engine, plain, pool, ask(PROMPT, parameters={"max_tokens": 1}))

    assert found.usage.cached_tokens is None
