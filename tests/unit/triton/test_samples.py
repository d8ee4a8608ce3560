"""Several samples of one input, and what comes with a generation on request."""

from __future__ import annotations

from dataclasses import replace

import pytest

from synapse.adapters.triton.engine import TritonEngine
from synapse.domain.errors import EngineTimeout, InvalidInput
from synapse.domain.extension import Extension
from synapse.domain.inference import Choice, Completion, Delta, TokenLogprob
from synapse.domain.job import Usage
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from tests.patience import until
from tests.unit.triton.asking import ask, ask_all, outcome, outcomes
from tests.unit.triton.fake_triton import FakeTriton

EVERYTHING = frozenset(Extension)


async def test_samples_are_one_completion_and_share_the_prompt(
    engine: TritonEngine, generator: ModelSpec, pool: Pool
) -> None:
    request = ask("one two three", samples=3, parameters={"max_tokens": 2})

    found = await outcome(engine, generator, pool, request)

    same = Choice("one two ", "length")
    assert found == Completion("one two ", "length", Usage(3, 6), others=(same, same))


async def test_samples_with_a_seed_have_each_their_own(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    await outcome(engine, generator, pool, ask("x", samples=3, parameters={"seed": 40}))

    assert sorted(seen.sampling["seed"] for seen in triton.generations) == [40, 41, 42]


async def test_samples_take_a_slot_each(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    model = replace(generator, slots=3)
    requests = ask_all(*["!sleep 0.02 x"] * 3, samples=4)

    found = await outcomes(engine, model, pool, requests)

    assert all(isinstance(each, Completion) and len(each.choices) == 4 for each in found.values())
    assert triton.most_running == 3


async def test_a_sample_that_fails_fails_the_item_and_stops_the_others(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    behave = {"1": "!status INVALID_ARGUMENT odd", "2": "!hang"}
    parameters = {"seed": 1, "behave_by_seed": behave}

    found = await outcome(engine, generator, pool, ask("x", samples=2, parameters=parameters))

    assert isinstance(found, InvalidInput)
    await until(lambda: triton.running == 0)


async def test_samples_that_wait_for_a_slot_end_in_time(
    engine: TritonEngine, generator: ModelSpec, pool: Pool
) -> None:
    model = replace(generator, slots=1)

    found = await outcome(engine, model, pool, ask("!hang", samples=2, timeout_s=0.1))

    assert isinstance(found, EngineTimeout)


async def test_logprobs_are_asked_for_and_the_chosen_token_is_the_first(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    first = TokenLogprob("one ", -2.0, (("best", -0.5),))
    second = TokenLogprob("two ", -2.0, (("best", -0.5),))
    request = ask("one two", parameters={"logprobs": 1})

    found = await outcome(engine, generator, pool, request)
    parts = [part async for part in engine.stream(generator, pool, request)]

    assert isinstance(found, Completion)
    assert found.logprobs == (first, second)
    assert [part.logprobs for part in parts] == [(first,), (second,), (), ()]
    assert all(seen.flags["return_logprobs"] for seen in triton.generations)


@pytest.mark.parametrize(
    ("wanted", "top"), [(0, ()), (2, (("best", -0.5), ("one ", -2.0)))], ids=["none", "two"]
)
async def test_as_many_of_the_likeliest_are_told_as_were_asked_for(
    engine: TritonEngine,
    generator: ModelSpec,
    pool: Pool,
    wanted: int,
    top: tuple[tuple[str, float], ...],
) -> None:
    request = ask("one", parameters={"logprobs": wanted})

    found = await outcome(engine, generator, pool, request)

    assert isinstance(found, Completion)
    assert found.logprobs == (TokenLogprob("one ", -2.0, top),)


async def test_cached_tokens_are_asked_for_only_where_the_worker_knows_them(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    knows = replace(generator, extensions=EVERYTHING)

    told = await outcome(engine, knows, pool, ask("one two"))
    untold = await outcome(engine, generator, pool, ask("one two"))
    parts = [part async for part in engine.stream(knows, pool, ask("one"))]

    assert isinstance(told, Completion)
    assert isinstance(untold, Completion)
    assert (told.usage, untold.usage) == (Usage(2, 2, 1), Usage(2, 2, None))
    assert parts == [
        Delta("one ", 1, 1),
        Delta("", 1, 0, "length", cached_tokens=1),
        Delta("", 0, 0, "length"),
    ]
    asked = ["return_num_cached_tokens" in seen.flags for seen in triton.generations]
    assert asked == [True, False, True]


async def test_of_a_models_extensions_only_those_of_the_pools_engines_are_used(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    model = replace(generator, extensions=EVERYTHING)
    vllm = replace(pool, extensions=frozenset({Extension.PRIORITY}))
    urgent = replace(ask("one"), priority=-3)

    found = [await outcome(engine, model, each, urgent) for each in (vllm, pool)]
    parts = [part async for part in engine.stream(model, vllm, urgent)]
    refused = await outcome(engine, model, vllm, ask((5, 17)))

    assert [isinstance(each, Completion) and each.usage.cached_tokens for each in found] == [
        None,
        1,
    ]
    assert [part.cached_tokens for part in parts] == [None] * len(parts)
    asked = ["return_num_cached_tokens" in seen.flags for seen in triton.generations]
    assert asked == [False, True, False]
    assert [seen.priority for seen in triton.generations] == [-3, -3, -3]
    assert isinstance(refused, InvalidInput)


async def test_a_pools_engines_add_nothing_to_what_a_model_lists(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    able = replace(pool, extensions=EVERYTHING)

    await outcome(engine, generator, able, replace(ask("one"), priority=-3))

    [seen] = triton.generations
    assert "return_num_cached_tokens" not in seen.flags
    assert seen.priority is None


async def test_token_ids_are_sent_as_they_are(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    model = replace(generator, extensions=EVERYTHING)

    found = await outcome(engine, model, pool, ask((5, 17, 49151)))

    assert isinstance(found, Completion)
    assert triton.generations[0].token_ids == (5, 17, 49151)


@pytest.mark.parametrize(
    ("extensions", "ids", "text"),
    [
        (frozenset(), (1, 2), "takes no token ids; send text"),
        (EVERYTHING, (), "no token ids in it"),
        (EVERYTHING, (1, 2**31), "ids that no token has"),
    ],
)
async def test_token_ids_that_cannot_be_sent_are_refused_here(
    engine: TritonEngine,
    triton: FakeTriton,
    generator: ModelSpec,
    pool: Pool,
    extensions: frozenset[Extension],
    ids: tuple[int, ...],
    text: str,
) -> None:
    model = replace(generator, extensions=extensions)

    found = await outcome(engine, model, pool, ask(ids))

    assert isinstance(found, InvalidInput)
    assert found.param == "prompt"
    assert text in found.message
    assert triton.generations == []


async def test_a_text_model_takes_no_token_ids_whatever_its_catalogue_says(
    engine: TritonEngine, texts: ModelSpec, pool: Pool
) -> None:
    found = await outcome(engine, replace(texts, extensions=EVERYTHING), pool, ask((1, 2)))

    assert isinstance(found, InvalidInput)


async def test_structured_output_travels_as_a_text_of_its_own(
    engine: TritonEngine, triton: FakeTriton, generator: ModelSpec, pool: Pool
) -> None:
    parameters = {"structured_outputs": {"json_object": True}}

    await outcome(engine, generator, pool, ask("x", parameters=parameters))

    assert triton.generations[0].sampling["structured_outputs"] == '{"json_object":true}'


@pytest.mark.parametrize(
    ("words", "param"),
    [
        ("invalid request: 'top_p' must be above 0", "top_p"),
        ("invalid request: sampling parameter 'n' supports only 1", "n"),
        ("invalid request: 'prompt_token_ids' has ids", "prompt"),
        ("invalid request: something else", None),
        ("it said 'top_p'", None),
    ],
)
async def test_a_refusal_names_the_parameter_that_the_worker_names(
    engine: TritonEngine, generator: ModelSpec, pool: Pool, words: str, param: str | None
) -> None:
    request = ask("tell me", parameters={"behave": f"!status INVALID_ARGUMENT {words}"})

    found = await outcome(engine, generator, pool, request)

    assert isinstance(found, InvalidInput)
    assert found.param == param
