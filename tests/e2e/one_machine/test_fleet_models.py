"""Real models in pools of their own, one of which is at zero until somebody asks for it."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import httpx

from tests.e2e.one_machine.fleets import until
from tests.e2e.one_machine.running import Server, alive, finished

LLM, EMBEDDER = "smollm2-135m-instruct", "all-minilm-l6-v2"
POOLS = f"""
[[pool]]
name = "vectors"
models = ["{EMBEDDER}"]

[[pool]]
name = "text"
models = ["{LLM}"]
min_workers = 0
[pool.slots]
{LLM} = 4
[pool.model_parameters.{LLM}]
slots = "4"
"""


def test_each_model_is_served_by_its_own_pool_and_one_is_started_by_its_first_request(
    tmp_path: Path, client: httpx.Client
) -> None:
    file = tmp_path / "pools.toml"
    file.write_text(POOLS, encoding="utf-8")
    server = Server(tmp_path / "data", "", "--pools", str(file))
    with contextlib.closing(server):
        server.start()
        embedded = _embedded(client, server)
        before = _pools(client, server)

        question = "What is the capital of France? Answer in one word."
        chat = {
            "model": LLM,
            "messages": [{"role": "user", "content": question}],
            "temperature": 0,
            "max_tokens": 16,
        }
        answer = client.post(f"{server.url}/v1/chat/completions", json=chat).json()
        body = {"model": LLM, "prompt": "The future of AI is", "parameters": {"max_tokens": 4}}
        job_id = client.post(f"{server.url}/async-infer", json=body).json()["jobId"]
        job = finished(client, server.url, job_id)

        assert len(embedded) == 384
        assert before == {"vectors"}
        assert "Paris" in answer["choices"][0]["message"]["content"]
        assert (job["status"], job["pool"]) == ("COMPLETED", "text")
        assert job["worker"].startswith("text-")
        assert _pools(client, server) == {"vectors", "text"}

        # What happens to one pool is nothing to the other.
        triton = next(pid for pid in server.descendants() if _serves(pid, "vectors-0"))
        os.kill(triton, signal.SIGKILL)
        again = client.post(f"{server.url}/v1/chat/completions", json=chat).json()
        assert again["choices"][0]["message"]["content"]
        until(lambda: not alive([triton]))
        assert _embedded(client, server) == embedded
        assert server.stop() == 0


def _embedded(client: httpx.Client, server: Server) -> list[float]:
    body = {"model": EMBEDDER, "input": "a pool of its own"}
    response = client.post(f"{server.url}/v1/embeddings", json=body)
    assert response.status_code == 200, response.text
    vector: list[float] = response.json()["data"][0]["embedding"]
    return vector


def _pools(client: httpx.Client, server: Server) -> set[str]:
    """The pools that have a worker."""
    workers = client.get(f"{server.url}/api/admin/workers").json()["data"]
    return {worker["pool"] for worker in workers}


def _serves(pid: int, worker: str) -> bool:
    command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    return any(part.endswith("tritonserver") for part in command[:1]) and any(
        f"/worker/{worker}/" in part for part in command
    )
