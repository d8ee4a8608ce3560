"""The engine adapter against a real Triton: what the fake of the unit tests claims, verified."""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing
from dataclasses import replace

from synapse.adapters.triton.engine import TritonEngine
from synapse.domain.errors import (
    EngineError,
    EngineLost,
    EngineTimeout,
    EngineUnavailable,
    InvalidInput,
)
from synapse.domain.inference import ChatMessage, Completion
from synapse.domain.job import JobId
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool
from tests.e2e.worker import Worker
from tests.patience import PATIENCE_S
from tests.unit.triton.asking import ask, ask_all, outcome, outcomes

GREEDY = {"temperature": 0, "max_tokens": 12}
LONG = {"max_tokens": 1500, "ignore_eos": True}


async def until_up(engine: TritonEngine, model: ModelSpec, pool: Pool) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not await engine.ready(model, pool):
            await asyncio.sleep(0.1)


async def test_both_models_are_live_and_ready(
    engine: TritonEngine, llm: ModelSpec, echo: ModelSpec, pool: Pool
) -> None:
    assert await engine.live(pool)
    assert await engine.ready(llm, pool)
    assert await engine.ready(echo, pool)
    assert not await engine.ready(replace(echo, version="2"), pool)


async def test_a_prompt_is_completed_and_its_usage_told(
    engine: TritonEngine, llm: ModelSpec, pool: Pool
) -> None:
    request = ask("The future of AI is", parameters=GREEDY)

    found = await outcome(engine, llm, pool, request)

    assert isinstance(found, Completion)
    assert found.text.strip()
    assert not found.text.startswith("The future of AI is")
    assert found.finish_reason == "length"
    assert (found.usage.prompt_tokens, found.usage.completion_tokens) == (5, 12)


async def test_a_stream_is_the_same_text_in_parts(
    engine: TritonEngine, llm: ModelSpec, pool: Pool
) -> None:
    request = ask(None, messages=(ChatMessage("user", "Say hi."),), parameters=GREEDY)

    whole = await outcome(engine, llm, pool, request)
    parts = [part async for part in engine.stream(llm, pool, request)]

    assert isinstance(whole, Completion)
    assert len(parts) > 3
    assert "".join(part.text for part in parts) == whole.text
    assert sum(part.completion_tokens for part in parts) == whole.usage.completion_tokens
    assert [part.finish_reason for part in parts[:-1]] == [None] * (len(parts) - 1)
    assert parts[-1].finish_reason == whole.finish_reason


async def test_a_chat_ends_at_its_end_token(
    engine: TritonEngine, llm: ModelSpec, pool: Pool
) -> None:
    talk = (ChatMessage("user", "What is the capital of France? Answer in one word."),)
    parameters = {"temperature": 0, "max_tokens": 100}

    found = await outcome(engine, llm, pool, ask(None, messages=talk, parameters=parameters))

    assert isinstance(found, Completion)
    assert "Paris" in found.text
    assert "<|im_end|>" not in found.text
    assert found.finish_reason == "stop"


async def test_as_many_as_there_are_slots_run_side_by_side(
    engine: TritonEngine, llm: ModelSpec, pool: Pool
) -> None:
    requests = ask_all(*(f"Number {at} is" for at in range(llm.slots)), parameters=GREEDY)

    found = await outcomes(engine, llm, pool, requests)

    assert all(isinstance(each, Completion) for each in found.values())


async def test_each_refused_item_says_why_and_fails_alone(
    engine: TritonEngine, llm: ModelSpec, pool: Pool
) -> None:
    secret = "the vault opens with seven red herrings. "
    requests = [
        ask("fine", "fine", parameters=GREEDY),
        ask("x", "unknown", parameters={"best_guess": 1}),
        ask("x", "negative", parameters={"max_tokens": -1}),
        ask("", "empty", parameters=GREEDY),
        ask(secret * 1000, "long", parameters=GREEDY),
    ]

    found = await outcomes(engine, llm, pool, requests)

    assert isinstance(found.pop(JobId("fine")), Completion)
    assert all(isinstance(each, InvalidInput) for each in found.values()), found
    said = {job_id: each.message for job_id, each in found.items() if isinstance(each, EngineError)}
    assert "best_guess" in said[JobId("unknown")]
    assert "max_tokens" in said[JobId("negative")]
    assert "context" in said[JobId("long")]
    assert "vault" not in said[JobId("long")]


async def test_what_is_out_of_time_frees_its_slot(
    engine: TritonEngine, llm: ModelSpec, pool: Pool
) -> None:
    slow = ask_all(*["Once upon a time"] * llm.slots, timeout_s=0.5, parameters=LONG)

    found = await outcomes(engine, llm, pool, slow)
    started = time.monotonic()
    after = await outcome(engine, llm, pool, ask("hello", parameters={"max_tokens": 1}))

    assert {type(each) for each in found.values()} == {EngineTimeout}
    assert isinstance(after, Completion)
    # 32 stories of 1,500 words would take many minutes.
    assert time.monotonic() - started < 30


async def test_closing_a_stream_frees_its_slot(
    engine: TritonEngine, llm: ModelSpec, pool: Pool
) -> None:
    for _ in range(llm.slots + 1):
        async with aclosing(engine.stream(llm, pool, ask("Once", parameters=LONG))) as parts:
            assert (await anext(parts)).text is not None

    found = await outcome(engine, llm, pool, ask("hello", parameters={"max_tokens": 1}))

    assert isinstance(found, Completion)


async def test_a_full_batch_of_texts_is_echoed(
    engine: TritonEngine, echo: ModelSpec, pool: Pool
) -> None:
    prompts = [f"item {at} äöü 🚀" for at in range(echo.batch.max_items)]

    found = await outcomes(engine, echo, pool, ask_all(*prompts))

    for at, prompt in enumerate(prompts):
        each = found[JobId(f"job-{at}")]
        assert isinstance(each, Completion)
        assert each.text == prompt


async def test_a_poisoned_item_fails_alone(
    engine: TritonEngine, echo: ModelSpec, pool: Pool
) -> None:
    prompts = [f"item {at}" for at in range(100)]
    prompts[42] = "!fail"

    found = await outcomes(engine, echo, pool, ask_all(*prompts))

    errors = {job_id: each for job_id, each in found.items() if isinstance(each, EngineError)}
    assert {job_id: type(each) for job_id, each in errors.items()} == {"job-42": InvalidInput}
    assert errors[JobId("job-42")].message == "an item asked to fail"


async def test_an_item_out_of_time_does_not_hold_up_the_engine(
    engine: TritonEngine, echo: ModelSpec, pool: Pool
) -> None:
    found = await outcome(engine, echo, pool, ask("!sleep:400", timeout_s=0.1))

    assert isinstance(found, EngineTimeout)
    assert isinstance(await outcome(engine, echo, pool, ask("hello")), Completion)


async def test_what_is_not_loaded_is_told_with_its_remedy(
    engine: TritonEngine, llm: ModelSpec, echo: ModelSpec, pool: Pool
) -> None:
    for model in (
        replace(llm, name="other"),
        replace(echo, name="other"),
        replace(llm, version="7"),
        replace(echo, version="7"),
    ):
        found = await outcome(engine, model, pool, ask("hello"))

        assert isinstance(found, EngineUnavailable)
        assert f"has not loaded model {model.name!r} version {model.version}" in found.message


async def test_a_model_catalogued_under_the_wrong_task_is_told(
    engine: TritonEngine, llm: ModelSpec, pool: Pool
) -> None:
    found = await outcome(engine, replace(llm, task=Task.TEXT), pool, ask("hello"))

    assert isinstance(found, EngineUnavailable)
    assert "otherwise than the catalogue says" in found.message


async def test_a_backend_that_dies_is_a_lost_worker_and_comes_back(
    engine: TritonEngine, echo: ModelSpec, pool: Pool, triton: Worker
) -> None:
    starts = triton.times_ready()

    found = await outcomes(engine, echo, pool, ask_all("innocent", "!crash"))

    assert [type(each) for each in found.values()] == [EngineLost, EngineLost]
    async with asyncio.timeout(PATIENCE_S):
        while triton.times_ready() == starts:
            await asyncio.sleep(0.1)
    await until_up(engine, echo, pool)
    assert isinstance(await outcome(engine, echo, pool, ask("hello")), Completion)


async def test_a_killed_triton_is_lost_to_those_on_it_and_unavailable_to_those_after(
    engine: TritonEngine, llm: ModelSpec, pool: Pool, triton: Worker
) -> None:
    await until_up(engine, llm, pool)
    slow = ask_all(*["Once upon a time"] * 8, parameters=LONG)
    running = asyncio.create_task(outcomes(engine, llm, pool, slow))
    await asyncio.sleep(0.5)

    triton.kill_triton()

    assert {type(each) for each in (await running).values()} == {EngineLost}
    after = await outcome(engine, llm, pool, ask("hello", parameters=GREEDY))
    assert isinstance(after, EngineUnavailable)
    assert "cannot be reached" in after.message
    await until_up(engine, llm, pool)
    again = await outcome(engine, llm, pool, ask("hello", parameters=GREEDY))
    assert isinstance(again, Completion)
