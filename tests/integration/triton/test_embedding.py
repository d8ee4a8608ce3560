"""The engine adapter and MiniLM on a real Triton: one request of many inputs."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import numpy as np
import pytest

from synapse.adapters.triton.engine import TritonEngine
from synapse.domain.errors import ContextLengthExceeded, EngineError, EngineTimeout, InvalidInput
from synapse.domain.inference import Embeddings, ModelInput, TextOrTokens
from synapse.domain.job import JobId
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest
from tests.patience import PATIENCE_S
from tests.unit.triton.asking import outcome, outcomes


@pytest.fixture
def minilm(catalogue: dict[str, ModelSpec]) -> ModelSpec:
    return catalogue["all-minilm-l6-v2"]


def ask(
    *inputs: TextOrTokens, request_id: str = "job-1", timeout_s: float = 60.0
) -> InferenceRequest:
    return InferenceRequest(JobId(request_id), timeout_s, ModelInput(inputs=inputs))


def matrix(found: object) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    assert isinstance(found, Embeddings)
    return np.stack([np.frombuffer(vector, "<f4") for vector in found.vectors])


async def test_many_inputs_come_back_in_their_order(
    engine: TritonEngine, minilm: ModelSpec, pool: Pool
) -> None:
    draw = random.Random(3)
    inputs = [f"number {at} " + "and more " * draw.randint(0, 30) for at in range(150)]

    together = await outcome(engine, minilm, pool, ask(*inputs))
    apart = [await outcome(engine, minilm, pool, ask(inputs[at])) for at in (0, 77, 149)]

    vectors = matrix(together)
    assert vectors.shape == (150, minilm.dimensions)
    for at, alone in zip((0, 77, 149), apart, strict=True):
        assert float(vectors[at] @ matrix(alone)[0]) > 0.9999
    assert isinstance(together, Embeddings)
    assert together.usage.prompt_tokens > 150 * 4


async def test_tokens_and_texts_may_come_in_one_request(
    engine: TritonEngine, minilm: ModelSpec, pool: Pool
) -> None:
    asked = ask((101, 7592, 2045, 102), "hello there")
    vectors = matrix(await outcome(engine, minilm, pool, asked))

    assert float(vectors[0] @ vectors[1]) > 0.9999


async def test_many_requests_at_once_are_all_served(
    engine: TritonEngine, minilm: ModelSpec, pool: Pool
) -> None:
    requests = [ask(f"text {at}", request_id=f"job-{at}") for at in range(30)]

    found = await outcomes(engine, minilm, pool, requests)

    assert all(isinstance(each, Embeddings) for each in found.values())


async def test_a_bad_input_fails_its_request_by_name_and_no_other(
    engine: TritonEngine, minilm: ModelSpec, pool: Pool
) -> None:
    bad = ask(*["some text"] * 40, "a long text, " * 200, *["more text"] * 40, request_id="bad")
    empty = ask("text", "", request_id="empty")
    strange = ask((101, 102), (101, 40_000, 102), request_id="strange")

    found = await outcomes(
        engine, minilm, pool, [bad, ask("good", request_id="good"), empty, strange]
    )

    assert isinstance(found[JobId("good")], Embeddings)
    refused = {name: error for name, error in found.items() if isinstance(error, InvalidInput)}
    assert {name: error.param for name, error in refused.items()} == {
        "bad": "input.40",
        "empty": "input.1",
        "strange": "input.1",
    }
    assert isinstance(refused[JobId("bad")], ContextLengthExceeded)


async def test_who_has_no_time_is_told_so(
    engine: TritonEngine, minilm: ModelSpec, pool: Pool
) -> None:
    inputs = ["a text of some length, " * 40] * 200

    found = await outcome(engine, minilm, pool, ask(*inputs, timeout_s=0.2))

    assert isinstance(found, EngineTimeout)


async def test_an_abandoned_request_leaves_the_engine_to_others(
    engine: TritonEngine, minilm: ModelSpec, pool: Pool
) -> None:
    inputs = ["a text of some length, " * 40] * 2000  # minutes of work
    asking = asyncio.create_task(outcome(engine, minilm, pool, ask(*inputs)))
    await asyncio.sleep(0.3)

    asking.cancel()

    async with asyncio.timeout(PATIENCE_S):
        assert isinstance(await outcome(engine, minilm, pool, ask("me")), Embeddings)


async def test_a_catalogue_that_is_wrong_about_the_size_is_told(
    engine: TritonEngine, minilm: ModelSpec, pool: Pool
) -> None:
    found = await outcome(engine, replace(minilm, dimensions=768), pool, ask("a"))

    assert type(found) is EngineError
    assert "cannot be read" in found.message
