"""Embeddings: the inputs of a request in calls of like length, put together again in order."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from synapse.adapters.triton import connection
from synapse.adapters.triton.engine import TritonEngine
from synapse.domain.batching import BatchPolicy
from synapse.domain.errors import (
    ContextLengthExceeded,
    EngineError,
    EngineLost,
    EngineTimeout,
    EngineUnavailable,
    InvalidInput,
)
from synapse.domain.inference import Embeddings, ModelInput
from synapse.domain.job import JobId
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool
from synapse.ports import InferenceRequest
from tests.factories import a_model, a_pool
from tests.patience import PATIENCE_S, until
from tests.unit.triton.asking import outcome, outcomes
from tests.unit.triton.fake_embedder import EMBEDDER, FakeEmbedder

PER_CALL = 4


@pytest.fixture
async def triton(sockets: Path) -> AsyncIterator[FakeEmbedder]:
    async with FakeEmbedder(f"unix:{sockets}/triton") as fake:
        yield fake


@pytest.fixture
def pool(triton: FakeEmbedder) -> Pool:
    return a_pool(endpoint=triton.address)


@pytest.fixture
def embedder() -> ModelSpec:
    policy = BatchPolicy(max_items=PER_CALL, max_tokens=100, max_wait_ms=0)
    return a_model(EMBEDDER, task=Task.EMBED, dimensions=2, max_output_tokens=0, batch=policy)


def ask(*inputs: Any, request_id: str = "job-1", **changes: Any) -> InferenceRequest:
    fields: dict[str, Any] = {"timeout_s": 60.0, "input": ModelInput(inputs=inputs), **changes}
    return InferenceRequest(JobId(request_id), **fields)


def lengths(found: object) -> list[int]:
    assert isinstance(found, Embeddings)
    return [int(struct.unpack("<2f", vector)[0]) for vector in found.vectors]


async def test_an_input_becomes_a_vector_and_its_tokens_are_told(
    engine: TritonEngine, triton: FakeEmbedder, embedder: ModelSpec, pool: Pool
) -> None:
    found = await outcome(engine, embedder, pool, ask("hello"))

    assert isinstance(found, Embeddings)
    assert found.vectors == (struct.pack("<2f", 5, 1),)
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (5, 0)


async def test_many_inputs_go_in_calls_of_like_length_and_come_back_in_order(
    engine: TritonEngine, triton: FakeEmbedder, embedder: ModelSpec, pool: Pool
) -> None:
    inputs = ["x" * size for size in (90, 4, 50, 8, 12, 70, 1, 20, 30, 99)]

    found = await outcome(engine, embedder, pool, ask(*inputs))

    assert lengths(found) == [len(text) for text in inputs]
    assert isinstance(found, Embeddings)
    assert found.usage.prompt_tokens == sum(map(len, inputs))
    calls = sorted([len(each) for each in call.inputs] for call in triton.embeddings)
    assert calls == [[1, 4, 8, 12], [20, 30, 50, 70], [90, 99]]


async def test_a_call_is_bounded_in_tokens_too(
    engine: TritonEngine, triton: FakeEmbedder, embedder: ModelSpec, pool: Pool
) -> None:
    inputs = ["x" * 160] * 4  # about 41 tokens each

    await outcome(engine, embedder, pool, ask(*inputs))

    assert [len(call.inputs) for call in triton.embeddings] == [2, 2]


async def test_tokens_go_as_they_are_and_never_with_texts(
    engine: TritonEngine, triton: FakeEmbedder, embedder: ModelSpec, pool: Pool
) -> None:
    found = await outcome(engine, embedder, pool, ask((5, 6, 7), "four", (8,)))

    assert lengths(found) == [3, 4, 1]
    calls = sorted((call.inputs for call in triton.embeddings), key=str)
    assert calls == [["four"], [(8,), (5, 6, 7)]]


async def test_at_most_two_calls_of_a_request_are_under_way(
    engine: TritonEngine, triton: FakeEmbedder, embedder: ModelSpec, pool: Pool
) -> None:
    found = await outcome(engine, embedder, pool, ask(*["!sleep 0.01"] * 5 * PER_CALL))

    assert len(lengths(found)) == 5 * PER_CALL
    assert triton.most_running == 2


async def test_requests_run_side_by_side_and_each_fails_for_itself(
    engine: TritonEngine, triton: FakeEmbedder, embedder: ModelSpec, pool: Pool
) -> None:
    requests = [ask("a", request_id="good"), ask("a", " ", request_id="bad"), ask(request_id="no")]

    found = await outcomes(engine, embedder, pool, requests)

    assert lengths(found[JobId("good")]) == [1]
    assert isinstance(found[JobId("bad")], InvalidInput)
    assert isinstance(found[JobId("no")], InvalidInput)


async def test_a_refused_input_is_named_by_its_place_in_the_request(
    engine: TritonEngine, embedder: ModelSpec, pool: Pool
) -> None:
    inputs = ["long enough", "longer still", "x" * 40, "x" * 60, "x" * 80, " ", "x" * 99]

    found = await outcome(engine, embedder, pool, ask(*inputs))

    assert isinstance(found, InvalidInput)
    assert (found.message, found.param) == ("input.5: is empty", "input.5")


async def test_a_refusal_that_repeats_an_input_still_names_it(
    engine: TritonEngine, embedder: ModelSpec, pool: Pool
) -> None:
    words = "invalid request: input.0: that is a secret"

    found = await outcome(engine, embedder, pool, ask("aa", f"!status INVALID_ARGUMENT {words}"))

    assert isinstance(found, InvalidInput)
    assert "secret" not in found.message
    # In the engine's eyes it was the first.
    assert (found.message.split(":")[0], found.param) == ("input.0", "input.0")


async def test_an_input_that_is_too_long_is_told_as_such(
    engine: TritonEngine, embedder: ModelSpec, pool: Pool
) -> None:
    found = await outcome(engine, embedder, pool, ask("a longer one", "!long"))

    assert isinstance(found, ContextLengthExceeded)
    assert found.message.startswith("input.1: 600 tokens")
    assert found.param == "input.1"


@pytest.mark.parametrize("ids", [(2**31,), (1, -(2**40))])
async def test_a_number_that_is_no_token_is_refused(
    engine: TritonEngine, embedder: ModelSpec, pool: Pool, ids: tuple[int, ...]
) -> None:
    found = await outcome(engine, embedder, pool, ask((1,), ids))

    assert isinstance(found, InvalidInput)
    assert found.param == "input.1"


async def test_a_text_that_is_no_unicode_is_refused(
    engine: TritonEngine, embedder: ModelSpec, pool: Pool
) -> None:
    found = await outcome(engine, embedder, pool, ask("fine", "\ud800"))

    assert isinstance(found, InvalidInput)
    assert found.param == "input.1"


@pytest.mark.parametrize("text", ["!short", "!uncounted"])
async def test_an_answer_of_the_wrong_size_is_an_error_and_no_vector(
    engine: TritonEngine, embedder: ModelSpec, pool: Pool, text: str
) -> None:
    found = await outcome(engine, embedder, pool, ask(text, "other"))

    assert type(found) is EngineError
    assert "cannot be read" in found.message


async def test_a_failed_call_ends_the_others(
    engine: TritonEngine, triton: FakeEmbedder, embedder: ModelSpec, pool: Pool
) -> None:
    bad = "!status UNAVAILABLE server is stopping"
    inputs = [bad, *["!hang and stay as long as you like, which is longer"] * 3 * PER_CALL]

    found = await outcome(engine, embedder, pool, ask(*inputs))

    assert isinstance(found, EngineUnavailable)
    await until(lambda: triton.running == 0)
    assert len(triton.embeddings) <= 3


async def test_a_call_that_ends_a_moment_after_it_was_left_is_not_cancelled(
    engine: TritonEngine,
    triton: FakeEmbedder,
    embedder: ModelSpec,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "LINGER_S", PATIENCE_S)
    asking = asyncio.create_task(outcome(engine, embedder, pool, ask("!sleep 0.1")))
    await until(lambda: triton.running == 1)

    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    await until(lambda: triton.running == 0)
    assert triton.cancelled == []


async def test_leaving_early_cancels_the_calls(
    engine: TritonEngine, triton: FakeEmbedder, embedder: ModelSpec, pool: Pool
) -> None:
    requests = [ask("!hang", request_id="a"), ask("b", request_id="b")]

    async with aclosing(engine.infer(embedder, pool, requests)) as found:
        assert (await anext(found))[0] == "b"

    await until(lambda: len(triton.cancelled) == 1)
    assert triton.running == 0


async def test_who_has_no_time_left_is_told_so(
    engine: TritonEngine, triton: FakeEmbedder, embedder: ModelSpec, pool: Pool
) -> None:
    found = await outcome(engine, embedder, pool, ask("!hang", timeout_s=0.1))

    assert isinstance(found, EngineTimeout)
    await until(lambda: triton.running == 0)


async def test_a_worker_that_is_not_there_is_unavailable(
    engine: TritonEngine, embedder: ModelSpec, sockets: Path
) -> None:
    found = await outcome(engine, embedder, a_pool(endpoint=f"unix:{sockets}/no"), ask("a"))

    assert isinstance(found, EngineUnavailable)


async def test_a_worker_that_goes_down_is_lost(
    engine: TritonEngine, triton: FakeEmbedder, embedder: ModelSpec, pool: Pool
) -> None:
    asking = asyncio.create_task(outcome(engine, embedder, pool, ask("!hang")))
    await until(lambda: triton.running == 1)

    await triton.__aexit__(None, None, None)

    assert isinstance(await asking, EngineLost)
