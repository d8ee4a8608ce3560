"""The chat function as it streams at AWS: `run.sh` with its layers, but without the web adapter.

The adapter itself is not to be had here. What it starts, with the template's settings, is; and it
asks over HTTP as this test does, with API Gateway's account of the request in a header.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from synapse.adapters.principal_records import principal_to_json
from synapse.domain.access import Principal
from tests.e2e.daemon import ROOT, Daemon, running
from tests.e2e.emulator import CREDENTIALS, REGION
from tests.e2e.lambda_runtime import runtime_packages
from tests.e2e.stack import Stack
from tests.infra.translation import TEMPLATE, read
from tests.patience import PATIENCE_S, once_in_a_few
from tests.ports import free_port

MODEL = "smollm2-135m-instruct"
REQUEST_ID = "c6af9ac6-7b61-11e6-9a41-93e8deadbeef"
CALLER = {"principalId": "a-key", "principal": principal_to_json(Principal(account="a-key"))}
CONTEXT = {"requestId": REQUEST_ID, "stage": "dev", "authorizer": CALLER}


@dataclass(frozen=True)
class ChatServer:
    """The running server."""

    client: httpx.Client
    daemon: Daemon


def adapter_settings() -> dict[str, str]:
    """What the template sets for the web adapter where there is one."""
    function = read(TEMPLATE)["Resources"]["ChatFunction"]["Properties"]
    assert function["Handler"]["Fn::If"][1] == "run.sh"
    variables = function["Environment"]["Variables"]
    return {
        name: value["Fn::If"][1]
        for name, value in variables.items()
        if name.startswith("AWS_LWA_") and value["Fn::If"][0] == "Streams"
    }


@pytest.fixture(scope="module")
def server(
    stack: Stack, built: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ChatServer]:
    """`run.sh` with the function's variables, its layers, and what the runtime brings."""
    folder = tmp_path_factory.mktemp("chat")
    python = folder / "python3"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    python.chmod(0o755)
    settings = adapter_settings()
    assert settings["AWS_LWA_INVOKE_MODE"] == "response_stream"
    assert settings["AWS_LWA_READINESS_CHECK_PROTOCOL"] == "tcp"
    port = free_port()
    layers = [str(built.parent / layer / "python") for layer in ("CoreLayer", "EngineLayer")]
    environment = {
        **stack.environment("chat"),
        **CREDENTIALS,
        **settings,
        "PATH": f"{folder}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(layers),
        "LAMBDA_TASK_ROOT": str(ROOT / "functions" / "chat"),
        "LAMBDA_RUNTIME_DIR": str(runtime_packages(tmp_path_factory.mktemp("runtime"))),
        "AWS_ENDPOINT_URL": stack.emulator.url,
        "AWS_REGION": REGION,
        # Where the template's own port may be taken on this machine.
        "AWS_LWA_PORT": str(port),
    }
    command = [str(ROOT / "functions" / "chat" / "run.sh")]
    with running(command, environment, folder / "chat.log") as daemon:
        headers = {"x-amzn-request-context": json.dumps(CONTEXT)}
        base_url = f"http://127.0.0.1:{port}"
        with httpx.Client(base_url=base_url, headers=headers, timeout=PATIENCE_S) as client:
            daemon.wait_until(lambda: listens(client), PATIENCE_S)
            yield ChatServer(client, daemon)


def listens(client: httpx.Client) -> bool:
    try:
        client.get("/")
    except httpx.TransportError:
        return False
    return True


def asked(**fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Tell me a story about a fox."}]
    return {"model": MODEL, "messages": messages, "max_tokens": 48, **fields}


def test_tokens_arrive_while_the_next_ones_are_written(server: ChatServer) -> None:
    assert once_in_a_few(lambda: tokens_arrive_one_by_one(server))


def tokens_arrive_one_by_one(server: ChatServer) -> bool:
    arrivals: list[float] = []
    lines: list[str] = []

    with server.client.stream("POST", "/v1/chat/completions", json=asked(stream=True)) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-request-id"] == REQUEST_ID
        for line in response.iter_lines():
            if line.startswith("data: "):
                arrivals.append(time.monotonic())
                lines.append(line.removeprefix("data: "))

    assert lines[-1] == "[DONE]"
    chunks = [json.loads(line) for line in lines[:-1]]
    text = "".join(choice["delta"].get("content") or "" for c in chunks for choice in c["choices"])
    assert len(text) > 40
    half = len(arrivals) // 2
    # Buffered, they would all come at once, at the end.
    pauses = arrivals[half] - arrivals[0], arrivals[-1] - arrivals[half]
    return len(arrivals) > 20 and min(pauses) > 0.01


def test_a_response_is_streamed_event_by_event(server: ChatServer) -> None:
    assert once_in_a_few(lambda: events_arrive_one_by_one(server))


def events_arrive_one_by_one(server: ChatServer) -> bool:
    arrivals: list[float] = []
    events: list[dict[str, Any]] = []
    body = {"model": MODEL, "input": "Tell me a story about a fox.", "max_output_tokens": 48}

    with server.client.stream("POST", "/v1/responses", json={**body, "stream": True}) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: "):
                arrivals.append(time.monotonic())
                events.append(json.loads(line.removeprefix("data: ")))

    assert events[0]["type"] == "response.created"
    assert events[-1]["type"] in ("response.completed", "response.incomplete")
    text = "".join(each["delta"] for each in events if each["type"].endswith("text.delta"))
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == text
    return len(arrivals) > 20 and arrivals[-1] - arrivals[0] > 0.01


def test_a_whole_answer_comes_from_the_same_server(server: ChatServer) -> None:
    response = server.client.post("/v1/chat/completions", json=asked(max_tokens=4))

    assert response.status_code == 200, response.text
    assert response.json()["usage"]["completion_tokens"] == 4


def test_a_bad_request_to_stream_is_refused_with_a_status(server: ChatServer) -> None:
    response = server.client.post("/v1/chat/completions", json=asked(stream=True, messages=[]))

    assert response.status_code == 400
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}


def test_when_the_last_byte_is_there_nothing_is_left_to_do(
    server: ChatServer, stack: Stack
) -> None:
    """Lambda may freeze the environment at that moment."""
    wait_until_idle(stack)
    before = len(metrics_of(server.daemon))

    server.client.post("/v1/chat/completions", json=asked(max_tokens=4)).raise_for_status()

    assert in_flight(stack) == 0
    assert len(metrics_of(server.daemon)) > before


def wait_until_idle(stack: Stack) -> None:
    """Until no job of another test is in flight either."""
    deadline = time.monotonic() + PATIENCE_S
    while in_flight(stack) > 0:
        assert time.monotonic() < deadline, "something is still in flight"
        time.sleep(0.2)


def in_flight(stack: Stack) -> int:
    item = stack.emulator.dynamodb.get_item(
        TableName=stack.outputs["RegistryTableName"],
        Key={"pk": {"S": f"in-flight#{MODEL}#primary"}, "sk": {"S": "total"}},
    ).get("Item")
    return int(item["total"]["N"]) if item else 0


def metrics_of(daemon: Daemon) -> list[dict[str, Any]]:
    """The embedded metrics that were written so far."""
    lines = [line for line in daemon.log_text().splitlines() if '"_aws"' in line]
    return [json.loads(line) for line in lines]
