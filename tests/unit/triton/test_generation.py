"""Generations against a decoupled Triton."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from synapse.adapters.triton import generation
from synapse.adapters.triton.connection import ConnectionSettings
from synapse.adapters.triton.engine import TritonEngine
from synapse.domain.errors import (
    EngineError,
    EngineLost,
    EngineTimeout,
    EngineUnavailable,
    InvalidInput,
)
from synapse.domain.inference import ChatMessage, Completion, Delta
from synapse.domain.job import Usage
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from tests.factories import a_pool
from tests.patience import PATIENCE_S, until
from tests.unit.triton.asking import ask, ask_all, outcome, outcomes
from tests.unit.triton.fake_triton import FakeTriton
from tests.unit.triton.wire import Wire


async def test_a_job_is_buffered_and_never_echoes_its_prompt(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    request = ask("the future of AI is", parameters={"max_tokens": 3, "stop": ["\n"], "seed": 7})

    found = await outcome(engine, generator, pool, request)

    assert found == Completion("the future of ", "length", Usage(5, 3))
    (seen,) = triton.generations
    assert seen.id == "job-1"
    assert seen.sampling == {"max_tokens": 3, "stop": ["\n"], "seed": 7}
    assert seen.flags == {
        "stream": False,
        "exclude_input_in_output": True,
        "return_finish_reason": True,
        "return_num_input_tokens": True,
        "return_num_output_tokens": True,
    }


async def test_a_stream_is_deltas_and_the_last_has_the_reason(
    engine: TritonEngine, generator: ModelSpec, pool: Pool
) -> None:
    parts = [part async for part in engine.stream(generator, pool, ask("one two"))]

    assert parts == [
        Delta("one ", 2, 1),
        Delta("two ", 2, 1),
        Delta("", 2, 0, "length"),
        Delta("", 0, 0, "length"),
    ]


async def test_messages_are_rendered_with_the_models_template(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    talk = (ChatMessage("system", "be brief"), ChatMessage("user", "hello {{ 7 * 7 }}"))

    await outcome(engine, generator, pool, ask(None, messages=talk))

    assert triton.generations[0].prompt == "system: be brief\nuser: hello {{ 7 * 7 }}\n"


async def test_a_batch_runs_at_once_up_to_the_models_slots(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    model = replace(generator, slots=3)

    found = await outcomes(engine, model, pool, ask_all(*["!sleep 0.02 x"] * 10))

    assert all(isinstance(each, Completion) for each in found.values())
    assert triton.most_running == 3


async def test_what_waits_for_a_slot_still_ends_in_time(
    engine: TritonEngine, generator: ModelSpec, pool: Pool
) -> None:
    model = replace(generator, slots=1)

    found = await outcomes(engine, model, pool, ask_all("!hang", "quick", timeout_s=0.1))

    assert [type(each) for each in found.values()] == [EngineTimeout, EngineTimeout]


async def test_a_refused_item_spares_the_others(
    engine: TritonEngine, generator: ModelSpec, pool: Pool
) -> None:
    prompts = ("fine", "!status INVALID_ARGUMENT invalid request: 'top_p' is odd", "also fine")

    found = list((await outcomes(engine, generator, pool, ask_all(*prompts))).values())

    kinds = sorted(type(each).__name__ for each in found)
    assert kinds == ["Completion", "Completion", "InvalidInput"]


async def test_the_stream_of_a_refusal_comes_to_its_own_end(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    found = await outcomes(engine, generator, pool, ask_all(*["!message invalid request: x"] * 8))

    assert {type(each) for each in found.values()} == {InvalidInput}
    await until(lambda: triton.running == 0)
    assert triton.cut_refusals == 0


async def test_a_refusal_whose_stream_has_no_end_is_told_all_the_same(
    engine: TritonEngine,
    triton: FakeTriton,
    generator: ModelSpec,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generation, "FINISH_S", 0.01)

    found = await outcome(engine, generator, pool, ask("!message invalid request: endless"))

    assert isinstance(found, InvalidInput)
    await until(lambda: triton.cut_refusals == 1)


async def test_a_refusal_is_told_though_the_line_is_closed_before_its_stream_has_ended(
    engine: TritonEngine,
    triton: FakeTriton,
    generator: ModelSpec,
    pool: Pool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generation, "FINISH_S", PATIENCE_S)
    asking = asyncio.create_task(
        outcome(engine, generator, pool, ask("!message invalid request: endless"))
    )
    await until(lambda: triton.refusals == 1)
    await asyncio.sleep(0.1)  # and it has been heard

    await engine.aclose()

    assert isinstance(await asking, InvalidInput)


async def test_an_item_out_of_time_is_cancelled_at_the_engine(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    # On a busy machine its time may be up before it has come to the engine.
    async with asyncio.timeout(PATIENCE_S):
        while not triton.cancelled:
            found = await outcome(engine, generator, pool, ask("!hang", timeout_s=0.1))
            assert isinstance(found, EngineTimeout)

    assert set(triton.cancelled) == {"!hang"}


async def test_a_deadline_already_past_is_not_begun(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    await engine.live(pool)

    found = await outcome(engine, generator, pool, ask("hello", timeout_s=-1.0))

    assert isinstance(found, EngineTimeout)
    assert triton.generations == []


async def test_closing_the_iterator_cancels_the_rest(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    requests = ask_all("quick", "!hang 1", "!hang 2")

    async with aclosing(engine.infer(generator, pool, requests)) as found:
        assert (await anext(found))[0] == "job-0"
        await until(lambda: triton.running == 2)

    await until(lambda: sorted(triton.cancelled) == ["!hang 1", "!hang 2"])


async def test_closing_a_stream_cancels_it(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    request = ask("one two three", parameters={"behave": "!hang-after-two"})

    async with aclosing(engine.stream(generator, pool, request)) as parts:
        assert (await anext(parts)).text == "one "

    await until(lambda: triton.cancelled == ["one two three"])


async def test_cancelling_the_task_cancels_the_generation(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    task = asyncio.create_task(outcome(engine, generator, pool, ask("!hang")))
    await until(lambda: triton.running == 1)

    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await until(lambda: triton.cancelled == ["!hang"])


@pytest.mark.parametrize(
    ("behave", "kind", "text"),
    [
        ("!status INVALID_ARGUMENT 'seed' is odd", InvalidInput, "'seed' is odd"),
        ("!status INTERNAL it broke", InvalidInput, "it broke"),
        ("!message Error generating stream: bad", InvalidInput, "Error generating stream: bad"),
        ("!status UNAVAILABLE unhealthy engine", EngineUnavailable, "takes no work"),
        ("!status CANCELLED request was cancelled", EngineLost, "went down"),
        ("!status DEADLINE_EXCEEDED too late", EngineTimeout, "time allowed"),
        ("!message Server not ready", EngineUnavailable, "takes no work"),
        ("!message engine failed: no memory", EngineUnavailable, "takes no work"),
        ("!message request was cancelled", EngineLost, "went down"),
        ("!cut", EngineLost, "went down"),
        ("!garbled", EngineError, "cannot be read"),
    ],
)
async def test_what_goes_wrong_has_a_kind_and_a_public_text(
    engine: TritonEngine,
    generator: ModelSpec,
    pool: Pool,
    behave: str,
    kind: type[EngineError],
    text: str,
) -> None:
    request = ask("tell me", parameters={"behave": behave})

    found = await outcome(engine, generator, pool, request)

    assert type(found) is kind
    assert isinstance(found, EngineError)
    assert text in found.message
    with pytest.raises(kind):
        [part async for part in engine.stream(generator, pool, request)]


async def test_an_error_never_repeats_the_prompt(
    engine: TritonEngine, generator: ModelSpec, pool: Pool
) -> None:
    secret = "my password is correct horse battery staple"

    found = await outcome(
        engine, generator, pool, ask(f"!status INVALID_ARGUMENT cannot say: {secret}")
    )

    assert isinstance(found, InvalidInput)
    assert found.message == "the model refuses this input"


async def test_an_unknown_model_or_version_is_not_loaded(
    engine: TritonEngine, generator: ModelSpec, pool: Pool
) -> None:
    for model in (replace(generator, name="other"), replace(generator, version="2")):
        found = await outcome(engine, model, pool, ask("hello"))

        assert isinstance(found, EngineUnavailable)
        assert f"has not loaded model {model.name!r} version {model.version}" in found.message


async def test_a_worker_that_is_not_there_is_unavailable(
    engine: TritonEngine, generator: ModelSpec
) -> None:
    nowhere = a_pool("gpu", endpoint="unix:/nowhere/at-all")

    found = await outcome(engine, generator, nowhere, ask("hello"))

    assert isinstance(found, EngineUnavailable)
    assert found.message == "the worker of pool 'gpu' cannot be reached"


async def test_a_worker_that_does_not_answer_is_unavailable_not_late(
    generator: ModelSpec, line: Wire, far_pool: Pool
) -> None:
    line.silent = True

    async with TritonEngine(ConnectionSettings(connect_timeout_s=0.2)) as engine:
        found = await outcome(engine, generator, far_pool, ask("hello"))

    assert isinstance(found, EngineUnavailable)


async def test_a_connection_that_breaks_under_work_is_a_lost_worker(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, line: Wire, far_pool: Pool
) -> None:
    task = asyncio.create_task(outcomes(engine, generator, far_pool, ask_all("!hang", "!hang")))
    await until(lambda: triton.running == 2)

    line.cut()

    assert [type(each) for each in (await task).values()] == [EngineLost, EngineLost]
    # The next one finds its way by itself.
    assert isinstance(await outcome(engine, generator, far_pool, ask("hello")), Completion)
    assert line.connections == 2


async def test_a_worker_that_stops_under_work_is_lost(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    task = asyncio.create_task(outcome(engine, generator, pool, ask("!hang")))
    await until(lambda: triton.running == 1)

    await triton.__aexit__()

    assert isinstance(await task, EngineLost)


async def test_closing_the_engine_ends_what_runs(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, texts: ModelSpec, pool: Pool
) -> None:
    tasks = [
        asyncio.create_task(outcome(engine, model, pool, ask("!hang")))
        for model in (generator, texts)
    ]
    await until(lambda: triton.running == 2)

    await engine.aclose()

    assert [type(await task) for task in tasks] == [EngineUnavailable, EngineUnavailable]


@pytest.mark.parametrize("parameters", [{"logit_bias": {1, 2}}, {"temperature": float("nan")}])
async def test_parameters_that_are_not_json_are_the_items_fault(
    engine: TritonEngine, generator: ModelSpec, pool: Pool, parameters: dict[str, object]
) -> None:
    found = await outcome(engine, generator, pool, ask("hello", parameters=parameters))

    assert isinstance(found, InvalidInput)
    assert found.param == "parameters"


@pytest.mark.parametrize("prompt", [None, "\ud800"])
async def test_an_item_without_a_usable_prompt_is_refused_here(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool, prompt: str | None
) -> None:
    assert isinstance(await outcome(engine, generator, pool, ask(prompt)), InvalidInput)
    with pytest.raises(InvalidInput):
        await anext(aiter(engine.stream(generator, pool, ask(prompt))))
    assert triton.generations == []
