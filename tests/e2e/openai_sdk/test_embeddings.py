"""Embeddings through the SDK, which asks for base64 unless told otherwise."""

from __future__ import annotations

import functools
import json
import math

import pytest
from openai import BadRequestError, OpenAI

from tests.e2e.openai_sdk.target import DIMENSIONS, EMBEDDER


def _cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def test_a_text_becomes_a_unit_vector(client: OpenAI) -> None:
    answer = client.embeddings.create(model=EMBEDDER, input="A cat sits on the mat.")

    [found] = answer.data
    assert (answer.object, answer.model) == ("list", EMBEDDER)
    assert (found.object, found.index) == ("embedding", 0)
    assert len(found.embedding) == DIMENSIONS
    assert math.hypot(*found.embedding) == pytest.approx(1, abs=1e-4)
    assert 5 <= answer.usage.prompt_tokens == answer.usage.total_tokens


def test_like_texts_are_near_and_come_back_in_order(client: OpenAI) -> None:
    texts = ["A cat sits on the mat.", "A kitten rests on a rug.", "Stock prices fell sharply."]
    found = client.embeddings.create(model=EMBEDDER, input=texts).data

    assert [each.index for each in found] == [0, 1, 2]
    cat, kitten, stocks = (each.embedding for each in found)
    assert _cosine(cat, kitten) > 0.4 > _cosine(cat, stocks)


def test_floats_and_base64_are_the_same_vector(client: OpenAI) -> None:
    create = functools.partial(client.embeddings.create, model=EMBEDDER, input="Hello")
    floats = create(encoding_format="float")
    default = create()
    raw = client.embeddings.with_raw_response.create(
        model=EMBEDDER, input="Hello", encoding_format="base64"
    )

    assert default.data[0].embedding == pytest.approx(floats.data[0].embedding, abs=1e-6)
    assert isinstance(json.loads(raw.text)["data"][0]["embedding"], str)


@pytest.mark.parametrize("tokens", [[101, 7592, 102], [[101, 7592, 102], [101, 2088, 102]]])
def test_token_ids_are_embedded(client: OpenAI, tokens: list[int] | list[list[int]]) -> None:
    answer = client.embeddings.create(model=EMBEDDER, input=tokens)

    count = len(tokens) if isinstance(tokens[0], list) else 1
    assert [len(each.embedding) for each in answer.data] == [DIMENSIONS] * count


def test_dimensions_are_refused_unless_they_are_the_models(client: OpenAI) -> None:
    same = client.embeddings.create(model=EMBEDDER, input="x", dimensions=DIMENSIONS)
    with pytest.raises(BadRequestError) as refused:
        client.embeddings.create(model=EMBEDDER, input="x", dimensions=64)

    assert len(same.data[0].embedding) == DIMENSIONS
    assert refused.value.param == "dimensions"


@pytest.mark.parametrize("bad", ["", [], ["fine", ""], ["x"] * 2049, "word " * 2000])
def test_an_input_that_cannot_be_embedded_is_refused(client: OpenAI, bad: str | list[str]) -> None:
    with pytest.raises(BadRequestError) as refused:
        client.embeddings.create(model=EMBEDDER, input=bad)

    assert (refused.value.param or "").startswith("input")
