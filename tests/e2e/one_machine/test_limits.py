"""Limits and budgets of a real server: bursts, a batch that runs out of money, and kill -9."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import aiohttp
import httpx
import openai
import pytest

from tests.e2e.one_machine.fleets import CALM, EchoPool, FleetServer
from tests.patience import PATIENCE_S

PRICED = EchoPool("priced", price=3.6, delay_ms=40, slots=4)
LINE_USD = 3.6 / 3600 / PRICED.slots * PRICED.delay_ms / 1000
"""What the slot costs that a line holds."""

LINES = 240
BUDGET_USD = 0.002


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetServer]:
    server = FleetServer(tmp_path_factory.mktemp("limits"), PRICED, times=CALM, auth="on")
    server.start()
    yield server
    server.close()


def client_of(server: FleetServer, *limits: str) -> httpx.Client:
    """A client with a key of its own, which has these limits."""
    key = server.new_key(*limits)
    return httpx.Client(
        base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=PATIENCE_S
    )


def sleep_into_minute(seconds_left: float) -> None:
    """Wait for the next minute, unless so much is left of this one."""
    if (left_s := 60 - time.time() % 60) < seconds_left:
        time.sleep(left_s + 0.05)


def begun(client: httpx.Client, lines: int) -> str:
    text = "\n".join(
        json.dumps(
            {
                "custom_id": f"c{number}",
                "method": "POST",
                "url": "/v1/completions",
                "body": {"model": "echo", "prompt": f"line {number}", "max_tokens": 8},
            }
        )
        for number in range(lines)
    )
    form = {"files": {"file": ("in.jsonl", text.encode())}, "data": {"purpose": "batch"}}
    uploaded = client.post("/v1/files", **form)  # type: ignore[arg-type]
    body = {
        "input_file_id": uploaded.json()["id"],
        "endpoint": "/v1/completions",
        "completion_window": "24h",
    }
    created = client.post("/v1/batches", json=body)
    assert created.status_code == 200, created.text
    return str(created.json()["id"])


def batch_of(client: httpx.Client, batch_id: str) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v1/batches/{batch_id}").json()
    return found


def ended(client: httpx.Client, batch_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while (batch := batch_of(client, batch_id))["status"] not in ("completed", "failed", "expired"):
        assert time.monotonic() < deadline, batch
        time.sleep(0.2)
    return batch


def spent_usd(client: httpx.Client) -> float:
    """What the client's own key has spent, as the report says."""
    key_id = client.headers["Authorization"].removeprefix("Bearer sk-syn-")[:12]
    report = client.get("/v1/usage", params={"group_by": "key"}).json()
    return float(sum(row["cost_usd"] for row in report["data"] if row["name"] == key_id))


def most_spent_usd(client: httpx.Client, batch: dict[str, Any], under_way: int) -> float:
    """The budget, and a little more than a line costs for each that was under way at its end.

    Where the machine is busy, a line holds its slot longer than was reserved for: receipts tell.
    """
    text = client.get(f"/v1/files/{batch['output_file_id']}/content").text
    jobs = [json.loads(line)["response"]["request_id"] for line in text.splitlines()]
    receipts = [client.get(f"/results/{job}").json()["receipt"] for job in jobs]
    dearest_usd = max(LINE_USD, *(float(receipt["cost"]["total_usd"]) for receipt in receipts))
    return BUDGET_USD + under_way * 2 * dearest_usd


def warmed_up(server: FleetServer) -> None:
    """Have it measured how long an item takes: until then a request is reserved ten minutes."""
    with client_of(server) as client:
        batch = ended(client, begun(client, 40))
    assert batch["request_counts"]["completed"] == 40


def test_of_a_burst_exactly_as_many_get_in_as_the_limit_says(server: FleetServer) -> None:
    key = server.new_key("--requests-per-minute", "50")
    sleep_into_minute(20)

    async def burst() -> list[aiohttp.ClientResponse]:
        # httpx looks through all its connections for each request, for seconds.
        headers = {"Authorization": f"Bearer {key}"}
        connections = aiohttp.TCPConnector(limit=100)
        async with aiohttp.ClientSession(headers=headers, connector=connections) as client:

            async def one() -> aiohttp.ClientResponse:
                body = {"model": "echo", "prompt": "hello", "parameters": {"max_tokens": 4}}
                async with client.post(f"{server.url}/async-infer", json=body) as answer:
                    await answer.read()
                return answer

            return await asyncio.gather(*(one() for _ in range(300)))

    answers = asyncio.run(burst())
    assert Counter(answer.status for answer in answers) == {202: 50, 429: 250}
    for answer in answers:
        assert answer.headers["x-ratelimit-limit-requests"] == "50"
        assert answer.status == 202 or 0 < int(answer.headers["retry-after"]) <= 60


def test_the_sdk_is_told_and_waits_as_it_is_told(server: FleetServer) -> None:
    key = server.new_key("--requests-per-minute", "1", "--max-tokens-per-request", "500")
    sleep_into_minute(20)
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0) as client:
        client.completions.create(model="echo", prompt="hello", max_tokens=4)
        with pytest.raises(openai.RateLimitError) as refused:
            client.completions.create(model="echo", prompt="hello", max_tokens=4)
        assert refused.value.code == "rate_limit_exceeded"
        with pytest.raises(openai.BadRequestError, match="500 tokens"):
            client.completions.create(model="echo", prompt="hello", max_tokens=800)


def test_a_budget_that_ends_in_the_middle_of_a_batch(server: FleetServer) -> None:
    warmed_up(server)
    with client_of(server, "--monthly-usd", str(BUDGET_USD)) as client:
        batch = ended(client, begun(client, LINES))
        counts = batch["request_counts"]
        assert counts["completed"] + counts["failed"] == LINES
        assert 0 < counts["completed"] < LINES
        text = client.get(f"/v1/files/{batch['error_file_id']}/content").text
        errors = [json.loads(line) for line in text.splitlines()]
        assert len(errors) == counts["failed"]
        assert {each["response"]["status_code"] for each in errors} == {429}
        bodies = [each["response"]["body"]["error"] for each in errors]
        assert {body["code"] for body in bodies} == {"insufficient_quota"}
        most_usd = most_spent_usd(client, batch, under_way=PRICED.slots)
        assert 0.3 * BUDGET_USD < spent_usd(client) <= most_usd
        refused = client.post("/async-infer", json={"model": "echo", "prompt": "more"})
        assert (refused.status_code, refused.headers["x-should-retry"]) == (429, "false")


def test_kill_9_neither_forgets_what_was_spent_nor_leaves_anything_under_way(
    server: FleetServer,
) -> None:
    warmed_up(server)
    limits = ("--monthly-usd", str(BUDGET_USD), "--concurrent-jobs", "6")
    with client_of(server, *limits) as client:
        batch_id = begun(client, LINES)
        deadline = time.monotonic() + PATIENCE_S
        while batch_of(client, batch_id)["request_counts"]["completed"] < 30:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.kill()
        server.start()
        batch = ended(client, batch_id)
        counts = batch["request_counts"]
        assert counts["completed"] + counts["failed"] == LINES
        assert 30 <= counts["completed"] < LINES, "the budget was forgotten"
        assert spent_usd(client) <= most_spent_usd(client, batch, under_way=6)
    with client_of(server, "--concurrent-jobs", "1") as other:
        answer = other.post("/v1/completions", json={"model": "echo", "prompt": "still there?"})
        assert answer.status_code == 200
