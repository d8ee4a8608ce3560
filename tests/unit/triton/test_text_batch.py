"""Batches for a text model against Triton's unary call."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synapse.adapters.triton import connection, text_batch
from synapse.adapters.triton.connection import ConnectionSettings
from synapse.adapters.triton.engine import TritonEngine
from synapse.domain.batching import BatchPolicy
from synapse.domain.errors import (
    EngineError,
    EngineLost,
    EngineTimeout,
    EngineUnavailable,
    InvalidInput,
)
from synapse.domain.inference import ChatMessage, Completion
from synapse.domain.job import JobId, Usage
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool
from tests.factories import a_pool
from tests.patience import PATIENCE_S, until
from tests.unit.triton.asking import ask, ask_all, outcome, outcomes
from tests.unit.triton.fake_triton import GENERATOR, FakeTriton
from tests.unit.triton.wire import Wire

POISON = "!status INTERNAL an item asked to fail"


async def test_a_batch_is_one_call_and_answers_keep_their_places(
    engine: TritonEngine, triton: FakeTriton, texts: ModelSpec, pool: Pool
) -> None:
    prompts = ["one", "", "zwei äöü 🚀", "line\nbreak"]

    found = await outcomes(engine, texts, pool, ask_all(*prompts))

    assert triton.batches == [prompts]
    answers = [found[JobId(f"job-{at}")] for at in range(4)]
    assert answers == [Completion(prompt.upper(), "stop", Usage()) for prompt in prompts]


async def test_a_poisoned_item_fails_alone(
    engine: TritonEngine, triton: FakeTriton, texts: ModelSpec, pool: Pool
) -> None:
    prompts = [f"item {at}" for at in range(32)]
    prompts[13] = POISON

    found = await outcomes(engine, texts, pool, ask_all(*prompts))

    refused = {job_id: each for job_id, each in found.items() if isinstance(each, EngineError)}
    assert list(refused) == ["job-13"]
    assert isinstance(refused[JobId("job-13")], InvalidInput)
    # Halving: two calls at each of five levels below the first.
    assert len(triton.batches) == 11


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(poisoned=st.lists(st.booleans(), min_size=1, max_size=20))
async def test_exactly_the_poisoned_items_fail(
    engine: TritonEngine, texts: ModelSpec, pool: Pool, poisoned: list[bool]
) -> None:
    prompts = [POISON if bad else f"item {at}" for at, bad in enumerate(poisoned)]

    found = await outcomes(engine, texts, pool, ask_all(*prompts))

    for at, bad in enumerate(poisoned):
        each = found[JobId(f"job-{at}")]
        assert isinstance(each, InvalidInput if bad else Completion)


async def test_a_batch_larger_than_the_model_takes_goes_in_parts(
    engine: TritonEngine, triton: FakeTriton, texts: ModelSpec, pool: Pool
) -> None:
    model = replace(texts, batch=BatchPolicy(max_items=3, max_tokens=1000))

    await outcomes(engine, model, pool, ask_all(*map(str, range(7))))

    assert sorted(map(len, triton.batches)) == [1, 3, 3]


async def test_a_batch_of_large_texts_goes_in_parts(
    engine: TritonEngine,
    triton: FakeTriton,
    texts: ModelSpec,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(text_batch, "MAX_CALL_BYTES", 100)

    await outcomes(engine, texts, pool, ask_all("a" * 60, "b" * 60, "c" * 200, "d", "e"))

    assert sorted(map(len, triton.batches)) == [1, 1, 1, 2]


async def test_no_requests_are_no_call(
    engine: TritonEngine, triton: FakeTriton, texts: ModelSpec, generator: ModelSpec, pool: Pool
) -> None:
    assert await outcomes(engine, texts, pool, []) == {}
    assert await outcomes(engine, generator, pool, []) == {}
    assert triton.batches == []


async def test_an_item_out_of_time_does_not_wait_for_its_batch(
    engine: TritonEngine, texts: ModelSpec, pool: Pool
) -> None:
    requests = [ask("soon", "job-1", timeout_s=0.05), ask("!sleep 1", "job-2")]

    found = [each async for each in engine.infer(texts, pool, requests)]

    assert [(job_id, type(each)) for job_id, each in found] == [
        ("job-1", EngineTimeout),
        ("job-2", Completion),
    ]


async def test_a_batch_out_of_time_is_cancelled_at_the_engine(
    engine: TritonEngine, triton: FakeTriton, texts: ModelSpec, pool: Pool
) -> None:
    # On a busy machine its time may be up before it has come to the engine.
    async with asyncio.timeout(PATIENCE_S):
        while not triton.cancelled:
            found = await outcomes(engine, texts, pool, ask_all("!hang", "other", timeout_s=0.1))
            assert {type(each) for each in found.values()} == {EngineTimeout}

    assert set(triton.cancelled) == {"!hang\nother"}


async def test_a_call_that_ends_a_moment_after_it_was_left_is_not_cancelled(
    engine: TritonEngine,
    triton: FakeTriton,
    texts: ModelSpec,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "LINGER_S", PATIENCE_S)
    asking = asyncio.create_task(outcome(engine, texts, pool, ask("!sleep 0.1")))
    await until(lambda: triton.running == 1)

    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    await until(lambda: triton.running == 0)
    assert triton.cancelled == []


async def test_closing_the_iterator_cancels_the_calls(
    engine: TritonEngine, triton: FakeTriton, texts: ModelSpec, pool: Pool
) -> None:
    model = replace(texts, batch=BatchPolicy(max_items=1, max_tokens=1000))

    async with aclosing(engine.infer(model, pool, ask_all("quick", "!hang"))) as found:
        assert (await anext(found))[0] == "job-0"
        await until(lambda: triton.running == 1)

    await until(lambda: triton.cancelled == ["!hang"])


@pytest.mark.parametrize(
    ("prompt", "kind"),
    [
        ("!status UNAVAILABLE busy", EngineUnavailable),
        ("!status RESOURCE_EXHAUSTED busy", EngineUnavailable),
        ("!status INTERNAL Stub process 'x' is not healthy.", EngineLost),
        ("!status CANCELLED stopping", EngineLost),
        ("!no-output", EngineError),
        ("!swallow", EngineError),
    ],
)
async def test_what_is_no_items_fault_is_not_searched_for(
    engine: TritonEngine,
    triton: FakeTriton,
    texts: ModelSpec,
    pool: Pool,
    prompt: str,
    kind: type[EngineError],
) -> None:
    found = await outcomes(engine, texts, pool, ask_all("fine", prompt, "fine"))

    assert [type(each) for each in found.values()] == [kind] * 3
    assert len(triton.batches) == 1


async def test_an_item_that_cannot_be_sent_spares_the_others(
    engine: TritonEngine, texts: ModelSpec, pool: Pool
) -> None:
    talk = (ChatMessage("user", "hello"),)
    requests = [ask("\ud800", "a"), ask(None, "b", messages=talk), ask(None, "c"), ask("x", "d")]

    found = await outcomes(engine, texts, pool, requests)

    kinds = [type(found[JobId(key)]) for key in "abcd"]
    assert kinds == [InvalidInput, InvalidInput, InvalidInput, Completion]


async def test_a_connection_that_breaks_under_a_batch_is_a_lost_worker(
    engine: TritonEngine, triton: FakeTriton, texts: ModelSpec, line: Wire, far_pool: Pool
) -> None:
    task = asyncio.create_task(outcomes(engine, texts, far_pool, ask_all("!hang", "other")))
    await until(lambda: triton.running == 1)

    line.cut()

    assert [type(each) for each in (await task).values()] == [EngineLost] * 2


async def test_who_waits_for_one_text_has_it_or_its_error(
    engine: TritonEngine, texts: ModelSpec, pool: Pool
) -> None:
    assert await engine.answer(texts, pool, ask("one")) == Completion("ONE", "stop", Usage())
    with pytest.raises(InvalidInput, match="refuses this input"):
        await engine.answer(texts, pool, ask(POISON))
    with pytest.raises(EngineTimeout):
        await engine.answer(texts, pool, ask("!hang", timeout_s=0.05))


async def test_a_text_that_is_waited_for_is_out_of_time_before_there_is_a_connection(
    texts: ModelSpec, pool: Pool
) -> None:
    async with TritonEngine() as cold:
        with pytest.raises(EngineTimeout):
            await cold.answer(texts, pool, ask("one", timeout_s=0.0))


async def test_who_does_not_wait_any_longer_ends_the_work_on_his_text(
    engine: TritonEngine, triton: FakeTriton, texts: ModelSpec, pool: Pool
) -> None:
    waiting = asyncio.create_task(engine.answer(texts, pool, ask("!hang")))
    await until(lambda: triton.running == 1)

    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
    await until(lambda: triton.cancelled == ["!hang"])


async def test_no_worker_is_no_ones_fault(engine: TritonEngine, texts: ModelSpec) -> None:
    nowhere = a_pool(endpoint="unix:/nowhere/at-all")

    found = await outcomes(engine, texts, nowhere, ask_all("one", "two"))

    assert [type(each) for each in found.values()] == [EngineUnavailable] * 2


async def test_a_model_of_another_task_is_told_so(
    engine: TritonEngine, generator: ModelSpec, pool: Pool
) -> None:
    wrong = replace(generator, name=GENERATOR, task=Task.TEXT)

    found = await outcome(engine, wrong, pool, ask("hello"))

    assert isinstance(found, EngineUnavailable)
    assert "otherwise than the catalogue says (task 'text')" in found.message


async def test_a_text_too_large_for_a_message_is_its_own_fault(
    texts: ModelSpec, pool: Pool
) -> None:
    async with TritonEngine(ConnectionSettings(max_message_bytes=4096)) as engine:
        found = await outcomes(engine, texts, pool, ask_all("x" * 5000, "fine"))

    assert isinstance(found[JobId("job-0")], InvalidInput)
    assert isinstance(found[JobId("job-1")], Completion)
