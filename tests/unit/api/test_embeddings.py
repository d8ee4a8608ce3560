"""POST /v1/embeddings over scripted engines."""

from __future__ import annotations

import struct
from base64 import b64decode
from typing import Any

import pytest

from synapse.domain.errors import ContextLengthExceeded, EngineLost, InvalidInput
from tests.fakes import Answer, ScriptedEngine
from tests.unit.api.calls import Answered, api_of, call
from tests.unit.application.world import CHAT, EMBEDDER, World


async def ask(world: World, **body: Any) -> Answered:
    headers = body.pop("headers", None)
    return await call(api_of(world), "POST", "/v1/embeddings", {"model": EMBEDDER, **body}, headers)


def failing(error: Answer) -> ScriptedEngine:
    return ScriptedEngine(lambda request: error)


async def test_vectors_come_in_the_order_of_their_inputs_with_the_usage() -> None:
    answer = await ask(World(), input=["one", "two words"])

    assert answer.status == 200
    assert answer.json == {
        "object": "list",
        "model": EMBEDDER,
        "data": [
            {"object": "embedding", "index": 0, "embedding": [1.0, 3.0]},
            {"object": "embedding", "index": 1, "embedding": [2.0, 9.0]},
        ],
        "usage": {"prompt_tokens": 3, "total_tokens": 3},
    }


async def test_base64_is_little_endian_floats() -> None:
    answer = await ask(World(), input="two words", encoding_format="base64")

    (data,) = answer.json["data"]
    assert struct.unpack("<2f", b64decode(data["embedding"])) == (2, 9)


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("a", ("a",)),
        (["a", "b"], ("a", "b")),
        ([5, 6], ((5, 6),)),
        ([[5, 6], [7]], ((5, 6), (7,))),
    ],
)
async def test_one_request_is_one_call_whatever_the_form_of_its_input(
    given: object, inputs: object
) -> None:
    world = World()

    answer = await ask(world, input=given, user="somebody", dimensions=2)

    assert answer.status == 200
    ((_, _, (request,)),) = world.engine.calls
    assert request.input.inputs == inputs


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "input", "missing_required_parameter"),
        ({"input": ""}, "input", "invalid_value"),
        ({"input": ["a", ""]}, "input.1", "invalid_value"),
        ({"input": []}, "input", "invalid_value"),
        ({"input": [[]]}, "input.0", "invalid_value"),
        ({"input": ["a"] * 2049}, "input", "invalid_value"),
        ({"input": 5}, "input", "invalid_type"),
        ({"input": [5, "a"]}, "input.1", "invalid_type"),
        ({"input": [True]}, "input.0", "invalid_type"),
        ({"input": [-1]}, "input.0", "invalid_value"),
        ({"input": [2**31]}, "input.0", "invalid_value"),
        ({"input": {"text": "a"}}, "input", "invalid_type"),
        ({"input": "a", "encoding_format": "int8"}, "encoding_format", "invalid_value"),
        ({"input": "a", "dimensions": 3}, "dimensions", "unsupported_parameter"),
        ({"input": "a", "dimensions": 0}, "dimensions", "invalid_value"),
        ({"input": "a", "truncate": True}, "truncate", "unknown_parameter"),
        ({"input": "a", "model": CHAT}, "model", "invalid_value"),
    ],
)
async def test_a_bad_request_is_refused_by_the_name_of_what_is_bad(
    body: dict[str, Any], param: str, code: str
) -> None:
    world = World()

    answer = await ask(world, **body)

    assert answer.status == 400
    assert (answer.error["param"], answer.error["code"]) == (param, code)
    assert answer.error["type"] == "invalid_request_error"
    assert not world.engine.calls


async def test_an_unknown_model_is_not_found() -> None:
    answer = await ask(World(), input="a", model="nobody")

    assert (answer.status, answer.error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
async def test_an_embedding_model_neither_chats_nor_continues(path: str) -> None:
    body = (
        {"prompt": "x"}
        if path == "/v1/completions"
        else {"messages": [{"role": "user", "content": "x"}]}
    )

    answer = await call(api_of(World()), "POST", path, {"model": EMBEDDER, **body})

    assert (answer.status, answer.error["param"]) == (400, "model")


async def test_a_refusal_by_the_engine_names_the_input_it_is_about() -> None:
    error = InvalidInput("input.1: is empty", param="input.1")

    answer = await ask(World(engine=failing(error)), input=["a", " "])

    assert (answer.status, answer.error["param"]) == (400, "input.1")
    assert answer.error["message"] == "input.1: is empty"


async def test_a_single_input_has_no_number() -> None:
    too_long = ContextLengthExceeded("input.0: 600 tokens are too many", param="input.0")

    answer = await ask(World(engine=failing(too_long)), input="a long one")

    assert answer.status == 400
    assert answer.error["message"] == "input: 600 tokens are too many"
    assert answer.error["param"] == "input"
    assert answer.error["code"] == "context_length_exceeded"


async def test_a_lost_worker_is_a_reason_to_ask_again() -> None:
    answer = await ask(World(engine=failing(EngineLost("it went down"))), input="a")

    assert (answer.status, answer.error["type"]) == (503, "server_error")


async def test_an_equal_request_may_be_answered_from_the_cache() -> None:
    world = World()
    headers = {"Synapse-Cache": "max-age=60"}

    first = await ask(world, input="a", headers=headers)
    again = await ask(world, input="a", headers=headers, encoding_format="base64")
    other = await ask(world, input="b", headers=headers)

    seen = [answer.headers["synapse-cache"] for answer in (first, again, other)]
    assert seen == ["miss", "hit", "miss"]
    assert len(world.engine.calls) == 2
    vector = struct.unpack("<2f", b64decode(again.json["data"][0]["embedding"]))
    assert list(vector) == first.json["data"][0]["embedding"]


async def test_nothing_stays_in_flight() -> None:
    answered, refused = World(), World(engine=failing(InvalidInput("no")))

    await ask(answered, input="a")
    await ask(refused, input="a")

    assert await answered.slots.count(EMBEDDER, "gpu") == 0
    assert await refused.slots.count(EMBEDDER, "gpu") == 0
