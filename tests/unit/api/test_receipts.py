"""Receipts on the wire: in results of jobs, in headers of answers, at the end of streams."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from synapse.api.receipts import receipt_headers
from synapse.domain.receipt import Receipt
from tests.unit.api.calls import api_of, call
from tests.unit.application.world import CHAT, EMBEDDER, World

HEADERS = {
    "x-synapse-version",
    "x-synapse-queue-ms",
    "x-synapse-cold-ms",
    "x-synapse-inference-ms",
    "x-synapse-batch-size",
    "x-synapse-pool",
    "x-synapse-cost-usd",
}
MESSAGES = [{"role": "user", "content": "one two three"}]


def told(headers: dict[str, str]) -> set[str]:
    return {name for name in headers if name.startswith("x-synapse-")}


async def test_an_ended_job_has_a_receipt_and_an_open_one_has_none() -> None:
    world = World()
    api = api_of(world)
    job = await world.submit("two words")

    before = (await call(api, "GET", f"/results/{job.id}")).json
    await world.work()
    after = (await call(api, "GET", f"/results/{job.id}")).json
    task = (await call(api, "GET", f"/api/inference/{job.id}")).json

    assert (before["receipt"], before["cost"]) == (None, None)
    receipt = after["receipt"]
    assert receipt["pool"] == after["pool"] == "gpu"
    assert (receipt["batch_size"], receipt["version"]) == (1, "1")
    assert (receipt["prompt_tokens"], receipt["completion_tokens"]) == (2, 2)
    assert receipt["queue_ms"] == after["timings"]["queued_ms"]
    assert receipt["inference_ms"] == after["timings"]["running_ms"]
    assert after["cost"] == receipt["cost"]
    assert after["cost"]["total_usd"] == pytest.approx(
        after["cost"]["active_usd"] + after["cost"]["warm_usd"]
    )
    assert (task["receipt"], task["cost"]) == (receipt, after["cost"])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"model": CHAT, "messages": MESSAGES}),
        ("/v1/completions", {"model": CHAT, "prompt": ["a b", "c"]}),
        ("/v1/responses", {"model": CHAT, "input": "a b"}),
        ("/v1/embeddings", {"model": EMBEDDER, "input": "a b"}),
    ],
)
async def test_a_whole_answer_says_in_headers_what_it_cost(path: str, body: object) -> None:
    answer = await call(api_of(World()), "POST", path, body)

    assert answer.status == 200
    assert told(answer.headers) == HEADERS
    assert answer.headers["x-synapse-pool"] == "gpu"
    assert float(answer.headers["x-synapse-cost-usd"]) > 0
    assert float(answer.headers["x-synapse-inference-ms"]) > 0
    assert "receipt" not in answer.json


async def test_an_answer_from_the_cache_cost_nothing_and_names_no_pool() -> None:
    api = api_of(World())
    body = {"model": CHAT, "messages": MESSAGES, "temperature": 0}
    headers = {"Synapse-Cache": "max-age=60"}

    await call(api, "POST", "/v1/chat/completions", body, headers)
    again = await call(api, "POST", "/v1/chat/completions", body, headers)

    assert again.headers["synapse-cache"] == "hit"
    assert again.headers["x-synapse-cost-usd"] == "0.000000000000"
    assert "x-synapse-pool" not in again.headers


async def test_a_stream_says_at_its_start_who_writes_and_at_its_end_what_it_cost() -> None:
    body = {
        "model": CHAT,
        "messages": MESSAGES,
        "stream": True,
        "stream_options": {"include_usage": True},
    }

    answer = await call(api_of(World()), "POST", "/v1/chat/completions", body)

    assert told(answer.headers) == {"x-synapse-version", "x-synapse-queue-ms", "x-synapse-pool"}
    chunks = _chunks(answer.text)
    assert all("receipt" not in chunk for chunk in chunks[:-1])
    receipt = chunks[-1]["receipt"]
    assert receipt["pool"] == "gpu"
    assert receipt["cost"]["total_usd"] > 0
    assert receipt["completion_tokens"] == chunks[-1]["usage"]["completion_tokens"] == 3


async def test_a_stream_whose_usage_was_not_asked_for_has_no_receipt() -> None:
    body = {"model": CHAT, "messages": MESSAGES, "stream": True}

    answer = await call(api_of(World()), "POST", "/v1/chat/completions", body)

    assert "receipt" not in answer.text


def test_headers_name_the_worker_unless_several_had_a_part_in_it() -> None:
    one = Receipt("1", pool="gpu", worker="w-7")

    assert receipt_headers([one])["x-synapse-worker"] == "w-7"
    assert "x-synapse-worker" not in receipt_headers([one, replace(one, worker="w-8")])
    assert receipt_headers([]) == {}


def _chunks(text: str) -> list[dict[str, Any]]:
    events = [line[6:] for line in text.splitlines() if line.startswith("data: {")]
    return [json.loads(event) for event in events]
