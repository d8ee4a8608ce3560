"""Jobs that embed: `input` of POST /async-infer."""

from __future__ import annotations

import json
import struct
from base64 import b64decode
from typing import Any

import pytest

from tests.unit.api.calls import api_of, call
from tests.unit.application.world import CHAT, EMBEDDER, World


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ("two words", ("two words",)),
        (["one", "two words"], ("one", "two words")),
        ([7, 8], ((7, 8),)),
        ([[7, 8], [9]], ((7, 8), (9,))),
    ],
)
async def test_a_job_embeds_a_text_or_many_or_their_tokens(given: object, inputs: object) -> None:
    world = World()
    api = api_of(world)

    accepted = await call(api, "POST", "/async-infer", {"model": EMBEDDER, "input": given})
    await world.work()
    job = (await call(api, "GET", f"/results/{accepted.json['jobId']}")).json

    assert world.engine.calls[-1][2][0].input.inputs == inputs
    assert job["status"] == "COMPLETED"
    assert job["usage"]["completion_tokens"] == 0
    assert len(job["result"]["embeddings"]) == len(inputs)  # type: ignore[arg-type]


async def test_the_result_is_a_vector_for_each_input_as_little_endian_floats() -> None:
    world = World()
    api = api_of(world)
    body = {"model": EMBEDDER, "input": ["one", "two words"]}

    accepted = await call(api, "POST", "/async-infer", body)
    await world.work()
    job = (await call(api, "GET", f"/results/{accepted.json['jobId']}")).json

    vectors = [struct.unpack("<2f", b64decode(each)) for each in job["result"]["embeddings"]]
    assert vectors == [(1, 3), (2, 9)]
    assert (job["usage"]["prompt_tokens"], job["usage"]["total_tokens"]) == (3, 3)


async def test_vectors_are_also_told_in_the_second_shape() -> None:
    world = World()
    api = api_of(world)

    accepted = await call(api, "POST", "/async-infer", {"model": EMBEDDER, "input": "one"})
    await world.work()
    task = (await call(api, "GET", f"/api/inference/{accepted.json['jobId']}")).json

    [vector] = json.loads(task["result"])["embeddings"]
    assert struct.unpack("<2f", b64decode(vector)) == (1, 3)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": EMBEDDER, "prompt": "x"}, "model"),
        ({"model": EMBEDDER, "messages": [{"role": "user", "content": "x"}]}, "model"),
        ({"model": CHAT, "input": "x"}, "model"),
        ({"model": EMBEDDER, "input": "x", "prompt": "y"}, "prompt"),
        ({"model": EMBEDDER}, "prompt"),
        ({"model": EMBEDDER, "input": ""}, "input"),
        ({"model": EMBEDDER, "input": ["x", ""]}, "input.1"),
        ({"model": EMBEDDER, "input": []}, "input"),
        ({"model": EMBEDDER, "input": [1, "x"]}, "input.1"),
        ({"model": EMBEDDER, "input": [[1], []]}, "input.1"),
        ({"model": EMBEDDER, "input": ["x"] * 2049}, "input"),
        ({"model": EMBEDDER, "input": "x", "parameters": {"temperature": 0.5}}, "parameters"),
    ],
)
async def test_what_cannot_be_embedded_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    world = World()

    answer = await call(api_of(world), "POST", "/async-infer", body)

    assert (answer.status, answer.error["param"]) == (400, param)
    assert not world.store.jobs
