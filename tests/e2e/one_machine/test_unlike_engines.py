"""One model on pools whose engines differ: what only one of them takes goes there, up or not."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import httpx

from tests.e2e.one_machine.fleets import until
from tests.e2e.one_machine.running import Server, finished

LLM = "smollm2-135m-instruct"
MODEL = f"""
[pool.slots]
{LLM} = 2
[pool.model_parameters.{LLM}]
slots = "2"
"""
POOLS = f"""
[[pool]]
name = "like-vllm"
models = ["{LLM}"]
extensions = ["priority"]
{MODEL}
[[pool]]
name = "llama"
price_per_hour_usd = 9
models = ["{LLM}"]
min_workers = 0
{MODEL}
"""
IDS = [504, 3575, 282, 7028, 314]


def test_prompts_as_token_ids_start_the_pool_that_takes_them_and_others_stay_where_they_were(
    tmp_path: Path, client: httpx.Client
) -> None:
    file = tmp_path / "pools.toml"
    file.write_text(POOLS, encoding="utf-8")
    server = Server(tmp_path / "data", "", "--pools", str(file))
    with contextlib.closing(server):
        server.start()
        text = _completed(client, server, "The future of AI is")
        before = _pools(client, server)
        batch = _batch(client, server, {"model": LLM, "prompt": IDS, "max_tokens": 4})

        assert "prompt_tokens_details" not in text["usage"]
        assert before == {"like-vllm"}
        until(lambda: _state(client, server, batch)["status"] == "completed")
        assert _state(client, server, batch)["request_counts"]["completed"] == 1
        assert _pools(client, server) == {"like-vllm", "llama"}

        ids = _completed(client, server, IDS)
        body = {"model": LLM, "prompt": "The future of AI is", "parameters": {"max_tokens": 4}}
        job_id = client.post(f"{server.url}/async-infer", json=body).json()["jobId"]

        assert ids["usage"]["prompt_tokens"] == len(IDS)
        assert finished(client, server.url, job_id)["pool"] == "like-vllm"
        assert server.stop() == 0


def _completed(client: httpx.Client, server: Server, prompt: str | list[int]) -> dict[str, Any]:
    body = {"model": LLM, "prompt": prompt, "max_tokens": 4}
    response = client.post(f"{server.url}/v1/completions", json=body)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def _batch(client: httpx.Client, server: Server, body: dict[str, Any]) -> str:
    """A batch of one request, by its id."""
    line = {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": body}
    uploaded = client.post(
        f"{server.url}/v1/files",
        data={"purpose": "batch"},
        files={"file": ("in.jsonl", json.dumps(line))},
    ).json()
    created = client.post(
        f"{server.url}/v1/batches",
        json={
            "input_file_id": uploaded["id"],
            "endpoint": "/v1/completions",
            "completion_window": "24h",
        },
    )
    assert created.status_code == 200, created.text
    batch_id: str = created.json()["id"]
    return batch_id


def _state(client: httpx.Client, server: Server, batch_id: str) -> dict[str, Any]:
    batch: dict[str, Any] = client.get(f"{server.url}/v1/batches/{batch_id}").json()
    return batch


def _pools(client: httpx.Client, server: Server) -> set[str]:
    """The pools that have a worker."""
    workers = client.get(f"{server.url}/api/admin/workers").json()["data"]
    return {worker["pool"] for worker in workers}
