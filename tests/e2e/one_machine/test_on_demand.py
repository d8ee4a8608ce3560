"""A pool of more models than a worker has memory for: they are loaded as they are asked for."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.e2e.one_machine.fleets import until
from tests.e2e.one_machine.running import Server, finished, submit
from tests.patience import PATIENCE_S

LLM, EMBEDDER = "smollm2-135m-instruct", "all-minilm-l6-v2"
ROUNDS = 2

POOLS = f"""
[[pool]]
name = "small"
memory_budget_mb = 400        # either the language model or the encoder, beside echo
models_at_start = ["echo"]
[pool.model_parameters.{LLM}]
slots = "2"
context_per_slot = "512"

[times]
beat_every_s = 0.2
ping_every_s = 1.0
scale_every_s = 0.2
"""


WARM = """
[[pool]]
name = "wide"
models = ["echo"]
memory_budget_mb = 400
min_workers = 0
max_workers = 2
[[pool.warm]]
model = "echo"
workers = 2

[times]
beat_every_s = 0.2
scale_every_s = 0.2
"""


def _wait_until_gone(client: httpx.Client, url: str, model: str) -> None:
    """Its place was taken; the health page tells so with the next look at the workers."""

    def is_gone() -> bool:
        workers = client.get(f"{url}/health").json()["workers"]
        return model not in {worker["model"] for worker in workers}

    until(is_gone)


def test_three_models_are_answered_in_turn_where_two_have_room(
    tmp_path: Path, client: httpx.Client
) -> None:
    file = tmp_path / "pools.toml"
    file.write_text(POOLS, encoding="utf-8")
    server = Server(tmp_path / "data", f"{LLM},{EMBEDDER},echo", "--pools", str(file))
    with contextlib.closing(server):
        server.start()

        for turn in range(ROUNDS):
            chat = {"model": LLM, "prompt": "The sky is", "max_tokens": 4}
            job = submit(client, server.url, "The sky is", model=LLM)
            assert finished(client, server.url, job)["status"] == "COMPLETED"
            text = client.post(f"{server.url}/v1/completions", json=chat, timeout=PATIENCE_S)
            assert text.status_code == 200, text.text
            _wait_until_gone(client, server.url, EMBEDDER)

            embed = {"model": EMBEDDER, "input": f"turn {turn}"}
            vector = client.post(f"{server.url}/v1/embeddings", json=embed, timeout=PATIENCE_S)
            assert vector.status_code == 200, vector.text
            assert len(vector.json()["data"][0]["embedding"]) == 384
            _wait_until_gone(client, server.url, LLM)

            echo = {"model": "echo", "prompt": f"turn {turn}"}
            said = client.post(f"{server.url}/v1/completions", json=echo, timeout=PATIENCE_S)
            assert said.json()["choices"][0]["text"] == f"turn {turn}"

        def completed(number: int) -> int:
            body = {"model": LLM, "prompt": f"Number {number}", "max_tokens": 2}
            return client.post(
                f"{server.url}/v1/completions", json=body, timeout=PATIENCE_S
            ).status_code

        with ThreadPoolExecutor(4) as callers:
            assert list(callers.map(completed, range(4))) == [200] * 4
        health = client.get(f"{server.url}/health").json()
        assert health["status"] == "ok"
        assert server.stop() == 0


def test_as_many_workers_have_a_model_as_are_to_be_warm(
    tmp_path: Path, client: httpx.Client
) -> None:
    file = tmp_path / "pools.toml"
    file.write_text(WARM, encoding="utf-8")
    server = Server(tmp_path / "data", "echo", "--pools", str(file))
    with contextlib.closing(server):
        server.start()

        def ready() -> set[str]:
            workers = client.get(f"{server.url}/api/admin/workers").json()["data"]
            return {worker["id"] for worker in workers if worker["state"] == "READY"}

        # One whose start fails has a successor, with a name of its own.
        until(lambda: len(ready()) == 2)
        assert server.stop() == 0
