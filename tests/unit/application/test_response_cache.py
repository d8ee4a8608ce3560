"""The response cache: the same deterministic request of the same caller, and nothing else."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from synapse.application.direct import DirectRequest
from synapse.application.response_cache import MAX_AGE_S, PREFIX
from synapse.domain.access import Principal
from synapse.domain.errors import Unavailable
from synapse.domain.inference import (
    ChatMessage,
    Choice,
    Completion,
    Embeddings,
    ModelInput,
    Result,
    TokenLogprob,
)
from synapse.domain.job import Usage
from tests.factories import a_chat_model, a_pool
from tests.fakes import MemoryRegistry
from tests.faults import failing_before
from tests.unit.application.world import CHAT, World

GREEDY = {"temperature": 0, "max_tokens": 5}
PARIS = Completion("Paris", "stop", Usage(7, 1, cached_tokens=4))


def a_request(**changes: Any) -> DirectRequest:
    value = ModelInput("The capital of France is", parameters=GREEDY)
    fields: dict[str, Any] = {"id": "r-1", "model": CHAT, "input": value, "timeout_s": 60.0}
    return DirectRequest(**{**fields, **changes})


@pytest.mark.parametrize(
    "result",
    [
        PARIS,
        Completion(
            "a",
            "length",
            Usage(1, 2),
            (TokenLogprob("a", -0.5, (("b", -1.5),)),),
            (Choice("b", "stop"),),
        ),
        Embeddings((b"\x00\x00\x80?", b"\x00\x00\x00@"), Usage(3, 0)),
    ],
    ids=["text", "samples and logprobs", "vectors"],
)
async def test_what_was_kept_is_found_whole(result: Result) -> None:
    cache = World().cache

    await cache.keep(a_request(), result, max_age_s=60)

    assert await cache.lookup(a_request(id="r-2", timeout_s=5.0)) == result


async def test_the_order_of_parameters_makes_no_other_request() -> None:
    cache = World().cache
    await cache.keep(a_request(), PARIS, max_age_s=60)

    turned = dict(reversed(GREEDY.items()))
    value = ModelInput("The capital of France is", parameters=turned)

    assert await cache.lookup(a_request(input=value)) == PARIS


@pytest.mark.parametrize(
    "other",
    [
        a_request(caller=Principal("somebody else")),
        a_request(model="echo"),
        a_request(input=ModelInput("The capital of Spain is", parameters=GREEDY)),
        a_request(input=ModelInput("The capital of France is", parameters={**GREEDY, "stop": "."})),
        a_request(
            input=ModelInput(
                messages=(ChatMessage("user", "The capital of France is"),), parameters=GREEDY
            )
        ),
        a_request(input=ModelInput("The capital of France is", parameters=GREEDY, samples=2)),
    ],
    ids=["tenant", "model", "prompt", "parameter", "kind", "samples"],
)
async def test_another_request_misses(other: DirectRequest) -> None:
    cache = World().cache

    await cache.keep(a_request(), PARIS, max_age_s=60)

    assert await cache.lookup(other) is None


async def test_another_version_of_the_model_misses() -> None:
    world = World()
    await world.cache.keep(a_request(), PARIS, max_age_s=60)
    world.registry = MemoryRegistry([a_chat_model(CHAT, version="2")], [a_pool()])

    assert await world.cache.lookup(a_request()) is None


@pytest.mark.parametrize(
    ("parameters", "is_kept"),
    [
        ({}, False),
        ({"temperature": 1}, False),
        ({"temperature": 0.7}, False),
        ({"temperature": 0.0}, True),
        ({"temperature": 1, "seed": 0}, True),
        ({"temperature": 1, "seed": -2}, True),
        ({"temperature": 1, "seed": -1}, False),  # no seed at all, to every engine
        ({"temperature": 0, "seed": -1}, True),
    ],
)
async def test_only_what_the_model_would_answer_alike_again_is_kept(
    parameters: dict[str, object], is_kept: bool
) -> None:
    world = World()
    request = a_request(input=ModelInput("Roll a die", parameters=parameters))

    await world.cache.keep(request, PARIS, max_age_s=60)

    assert bool(world.blobs.blobs) is is_kept
    assert (await world.cache.lookup(request) is not None) is is_kept


async def test_vectors_are_kept_whatever_the_parameters() -> None:
    cache = World().cache
    request = a_request(input=ModelInput(inputs=("hello",)))
    vectors = Embeddings((b"\x00\x00\x80?",), Usage(1, 0))

    await cache.keep(request, vectors, max_age_s=60)

    assert await cache.lookup(request) == vectors


async def test_an_entry_is_forgotten_at_its_age() -> None:
    world = World()
    await world.cache.keep(a_request(), PARIS, max_age_s=60)

    world.clock.advance(59.9)
    assert await world.cache.lookup(a_request()) == PARIS
    world.clock.advance(0.2)
    assert await world.cache.lookup(a_request()) is None


async def test_no_entry_outlives_the_longest_age() -> None:
    world = World()
    await world.cache.keep(a_request(), PARIS, max_age_s=10 * MAX_AGE_S)

    world.clock.advance(MAX_AGE_S)

    assert await world.cache.lookup(a_request()) is None


@pytest.mark.parametrize("age_s", [0, -1])
async def test_an_age_of_nothing_keeps_nothing(age_s: float) -> None:
    world = World()

    await world.cache.keep(a_request(), PARIS, max_age_s=age_s)

    assert world.blobs.blobs == {}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not JSON \xff",
        b"[]",
        b"null",
        b"{}",
        b'{"format": 1, "key": "another"}',
    ],
)
async def test_a_broken_or_foreign_entry_is_a_miss(data: bytes) -> None:
    world = World()
    await world.cache.keep(a_request(), PARIS, max_age_s=60)
    [key] = world.blobs.blobs

    world.blobs.blobs[key] = data

    assert await world.cache.lookup(a_request()) is None


@pytest.mark.parametrize(
    "change",
    [
        {"format": 0},
        {"key": "another"},
        {"expires_at": "soon"},
        {"usage": [1]},
        {"usage": None},
        {"result": "{"},
        {"result": "{}"},
        {"result": '{"embeddings": [3]}'},
        {"result": None},
    ],
)
async def test_an_entry_that_is_broken_in_one_place_is_a_miss(change: dict[str, object]) -> None:
    world = World()
    await world.cache.keep(a_request(), PARIS, max_age_s=60)
    [(key, data)] = world.blobs.blobs.items()

    world.blobs.blobs[key] = json.dumps({**json.loads(data), **change}).encode()

    assert await world.cache.lookup(a_request()) is None


async def test_entries_lie_where_they_may_be_deleted() -> None:
    world = World()
    await world.cache.keep(a_request(), PARIS, max_age_s=60)

    [key] = world.blobs.blobs
    assert key.startswith(PREFIX)


async def test_a_store_that_is_away_is_a_miss_and_no_error() -> None:
    world = World()
    away = Unavailable("the disk is full")
    cache = replace(world.cache, blobs=failing_before(world.blobs, get=[away], put=[away]))

    await cache.keep(a_request(), PARIS, max_age_s=60)
    assert world.blobs.blobs == {}
    assert await cache.lookup(a_request()) is None
