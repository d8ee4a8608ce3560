"""A user's first minutes: start, ask, stop."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.e2e.one_machine.running import (
    Server,
    alive,
    finished,
    serve_command,
    submit,
    wait_gone,
)
from tests.patience import PATIENCE_S, TRIES
from tests.ports import free_port

LLM = "smollm2-135m-instruct"


def test_a_real_model_answers_a_real_request(llm_server: Server, client: httpx.Client) -> None:
    body = {"model": LLM, "prompt": "The future of AI is"}
    accepted = client.post(f"{llm_server.url}/async-infer", json=body)
    job = accepted.json()

    done = finished(client, llm_server.url, job["jobId"])

    assert accepted.status_code == 202
    assert job["queue_position"] >= 1
    assert job["estimated_wait_time"] is not None  # the first ping measured it
    assert done["status"] == "COMPLETED"
    assert done["result"]["text"].strip()
    assert done["usage"]["prompt_tokens"] >= 5
    assert done["usage"]["completion_tokens"] >= 1
    assert done["timings"]["total_ms"] > 0
    assert (done["pool"], done["accelerator"]) == ("local", "cpu")


def test_a_job_and_its_result_in_one_request(llm_server: Server, client: httpx.Client) -> None:
    body = {"model": LLM, "prompt": "The future of AI is", "parameters": {"max_tokens": 8}}
    answer = client.post(f"{llm_server.url}/infer", params={"wait": 300}, json=body)
    result = answer.json()

    assert (answer.status_code, result["status"]) == (200, "COMPLETED"), result
    assert result["result"]["text"].strip()
    assert client.get(llm_server.url + answer.headers["location"]).json() == result


def test_a_conversation_is_rendered_with_the_models_own_template(
    llm_server: Server, client: httpx.Client
) -> None:
    question = "What is the capital of France? Answer in one word."
    body = {
        "model": LLM,
        "messages": [{"role": "user", "content": question}],
        "parameters": {"temperature": 0, "max_tokens": 16},
    }
    job_id = client.post(f"{llm_server.url}/async-infer", json=body).json()["jobId"]

    done = finished(client, llm_server.url, job_id)

    assert "Paris" in done["result"]["text"]
    assert done["result"]["finish_reason"] == "stop"


def test_the_same_seed_gives_the_same_text(llm_server: Server, client: httpx.Client) -> None:
    parameters = {"temperature": 0.9, "seed": 7, "max_tokens": 12}
    texts = set()
    for _ in range(2):
        job_id = submit(client, llm_server.url, "Once upon", model=LLM, parameters=parameters)
        texts.add(finished(client, llm_server.url, job_id)["result"]["text"])

    assert len(texts) == 1


def test_a_prompt_beyond_the_context_fails_with_its_cause(
    llm_server: Server, client: httpx.Client
) -> None:
    job_id = submit(client, llm_server.url, "word " * 20_000, model=LLM)

    done = finished(client, llm_server.url, job_id)

    assert done["status"] == "FAILED"
    assert done["error"]["code"] == "context_length_exceeded"
    assert done["error"]["type"] == "invalid_request_error"
    assert "context" in done["error"]["message"] or "token" in done["error"]["message"]


def cancelled(server: Server, client: httpx.Client) -> str | None:
    """A long generation that was cancelled while it ran; None if it was over by then."""
    long = {"max_tokens": 1024, "ignore_eos": True}
    job_id = submit(client, server.url, "Count:", model=LLM, parameters=long)
    while client.get(f"{server.url}/results/{job_id}").json()["status"] == "QUEUED":
        time.sleep(0.01)
    answer = client.delete(f"{server.url}/results/{job_id}")
    if answer.status_code == 409:
        return None
    assert answer.json()["status"] == "CANCELLED"
    return job_id


def test_a_cancelled_generation_stops(llm_server: Server, client: httpx.Client) -> None:
    job_id = next(filter(None, (cancelled(llm_server, client) for _ in range(TRIES))))

    # The slot is free again: a short job is not held up by the long one's thousand tokens.
    parameters = {"max_tokens": 2}
    short = submit(client, llm_server.url, "Hi", model=LLM, parameters=parameters)
    assert finished(client, llm_server.url, short)["status"] == "COMPLETED"
    assert client.get(f"{llm_server.url}/results/{job_id}").json()["status"] == "CANCELLED"


def test_the_pages_and_the_metrics_are_there(llm_server: Server, client: httpx.Client) -> None:
    for path in ("/api/docs", "/api/redoc", "/openapi.json", "/v1/models"):
        assert client.get(f"{llm_server.url}{path}").status_code == 200
    metrics = client.get(f"{llm_server.url}/metrics").text
    assert "synapse_jobs_submitted_total" in metrics
    assert 'synapse_worker_healthy{model="echo",pool="local"} 1' in metrics


def test_a_body_of_ten_megabytes_is_refused(llm_server: Server, client: httpx.Client) -> None:
    body = {"model": "echo", "prompt": "x" * 10_000_000}

    refused = client.post(f"{llm_server.url}/async-infer", json=body)

    assert refused.status_code == 413
    assert refused.json()["error"]["code"] == "payload_too_large"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_server_leaves_no_process(
    new_server: Callable[..., Server], how: signal.Signals
) -> None:
    server = new_server()
    server.start()
    children = server.descendants()
    assert children

    assert server.stop(how) == 0

    assert not alive(children)


def test_a_killed_server_takes_its_triton_along(new_server: Callable[..., Server]) -> None:
    server = new_server()
    server.start()
    children = server.descendants()

    server.kill()

    assert not wait_gone(children)


def _start(tmp_path: Path, port: int, *more: str) -> subprocess.CompletedProcess[str]:
    command = serve_command(tmp_path / "data", port, "echo", *more)
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def test_a_port_in_use_is_said_in_one_line(llm_server: Server, tmp_path: Path) -> None:
    failed = _start(tmp_path, llm_server.port)

    assert failed.returncode == 1
    [line] = failed.stderr.splitlines()
    assert f"port {llm_server.port} is in use" in line
    assert "--port" in line


@pytest.mark.parametrize(
    ("options", "cause"),
    [
        (["--worker-venv", "/nonexistent"], "/nonexistent"),
        (["--models", "gpt-9"], "gpt-9"),
        (["--models", " , "], "no model"),
        (["--data-dir", "/proc/none"], "/proc/none"),
    ],
)
def test_what_keeps_the_server_from_starting_is_said_in_one_line(
    tmp_path: Path, options: list[str], cause: str
) -> None:
    failed = _start(tmp_path, free_port(), *options)

    assert failed.returncode == 1
    [line] = failed.stderr.splitlines()
    assert line.startswith("synapse: ")
    assert cause in line


def test_a_second_server_on_the_same_data_is_refused(llm_server: Server) -> None:
    command = serve_command(llm_server.data_dir, free_port(), "echo")
    second = subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )

    assert second.returncode == 1
    [line] = second.stderr.splitlines()
    assert str(llm_server.pid) in line
