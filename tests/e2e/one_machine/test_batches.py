"""File batches on one machine, through the real server and worker; it may be killed meanwhile."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.one_machine.running import Server
from tests.patience import PATIENCE_S, TRIES

LINES = 1000
BROKEN = range(50, LINES, 100)
ENDED = {"completed", "failed", "expired", "cancelled"}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "data", "echo")
    server.start()
    yield server
    server.close()


def the_file() -> bytes:
    """A thousand lines, of which ten are broken, in several ways."""
    ways = [b"{", b"nonsense", b'{"custom_id": 1}', b"[]", b'{"custom_id": "x", "method": "GET"}']
    lines = [a_line(number) for number in range(LINES)]
    for index, number in enumerate(BROKEN):
        lines[number] = ways[index % len(ways)]
    return b"\n".join(lines)


def a_line(number: int) -> bytes:
    body = {"model": "echo", "prompt": f"line {number}", "max_tokens": 8}
    line = {"custom_id": f"c{number}", "method": "POST", "url": "/v1/completions", "body": body}
    return json.dumps(line).encode()


def begun(server: Server, data: bytes, **changes: Any) -> str:
    """A new batch of a file with these bytes; its id."""
    form = {"files": {"file": ("in.jsonl", data)}, "data": {"purpose": "batch"}}
    uploaded = httpx.post(f"{server.url}/v1/files", timeout=PATIENCE_S, **form)  # type: ignore[arg-type]
    assert uploaded.status_code == 200, uploaded.text
    body = {
        "input_file_id": uploaded.json()["id"],
        "endpoint": "/v1/completions",
        "completion_window": "24h",
        **changes,
    }
    created = httpx.post(f"{server.url}/v1/batches", json=body)
    assert created.status_code == 200, created.text
    return str(created.json()["id"])


def until(
    server: Server, batch_id: str, condition: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        batch: dict[str, Any] = httpx.get(f"{server.url}/v1/batches/{batch_id}").json()
        if condition(batch):
            return batch
        time.sleep(0.01)
    raise AssertionError(f"it has not come to that: {batch}\n{server.log.read_text()}")


def ended(server: Server, batch_id: str) -> dict[str, Any]:
    return until(server, batch_id, lambda batch: batch["status"] in ENDED)


def lines_of(server: Server, file_id: str) -> list[dict[str, Any]]:
    content = httpx.get(f"{server.url}/v1/files/{file_id}/content")
    assert content.status_code == 200
    return [json.loads(line) for line in content.text.splitlines()]


def check_totals(server: Server, batch: dict[str, Any]) -> None:
    """That 990 lines were answered and 10 refused, each of them once."""
    good = [number for number in range(LINES) if number not in BROKEN]
    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 1000, "completed": 990, "failed": 10}
    output = lines_of(server, batch["output_file_id"])
    answers = {line["custom_id"]: line["response"]["body"] for line in output}
    assert len(output) == 990
    assert {name: body["choices"][0]["text"] for name, body in answers.items()} == {
        f"c{number}": f"line {number}" for number in good
    }
    errors = lines_of(server, batch["error_file_id"])
    assert [line["error"]["line"] for line in errors] == [number + 1 for number in BROKEN]


def recorded(server: Server) -> list[tuple[str, int]]:
    """How many jobs there are in which state."""
    with closing(sqlite3.connect(server.data_dir / "jobs.db")) as database:
        return database.execute("SELECT state, count(*) FROM jobs GROUP BY state").fetchall()


def test_a_thousand_lines_with_ten_broken_give_990_answers_and_10_errors(server: Server) -> None:
    batch = ended(server, begun(server, the_file(), metadata={"team": "a"}))

    check_totals(server, batch)
    assert batch["metadata"] == {"team": "a"}
    assert recorded(server) == [("COMPLETED", 990)]


def killed_in_the_middle(server: Server) -> str | None:
    """A batch during which the server was killed twice; None if it was over before that."""
    batch_id = begun(server, the_file())
    until(server, batch_id, lambda batch: batch["status"] != "validating")
    server.kill()
    server.start()
    batch = until(server, batch_id, lambda batch: batch["request_counts"]["completed"] > 0)
    server.kill()
    server.start()
    return batch_id if batch["request_counts"]["completed"] < 990 else None


def test_a_server_killed_in_the_middle_ends_with_the_same_totals(server: Server) -> None:
    tried = [killed_in_the_middle(server)]
    while tried[-1] is None:
        assert len(tried) < TRIES, "it was never in the middle"
        tried.append(killed_in_the_middle(server))

    check_totals(server, ended(server, tried[-1]))
    assert recorded(server) == [("COMPLETED", 990 * len(tried))]


def cancelled(server: Server) -> str | None:
    """A batch that was cancelled with some of its lines answered; None if it was over by then."""
    batch_id = begun(server, b"\n".join(map(a_line, range(3 * LINES))))
    until(server, batch_id, lambda batch: batch["request_counts"]["completed"] > 0)
    answer = httpx.post(f"{server.url}/v1/batches/{batch_id}/cancel")
    if answer.status_code == 409:
        return None
    assert answer.json()["status"] == "cancelling"
    return batch_id


def test_a_cancelled_batch_keeps_what_was_answered(server: Server) -> None:
    batch_id = next(filter(None, (cancelled(server) for _ in range(TRIES))))

    batch = ended(server, batch_id)

    assert batch["status"] == "cancelled"
    counts = batch["request_counts"]
    assert counts["completed"] + counts["failed"] == counts["total"] == 3 * LINES
    assert len(lines_of(server, batch["output_file_id"])) == counts["completed"] < 3 * LINES
    errors = lines_of(server, batch["error_file_id"])
    assert {line["error"]["code"] for line in errors} == {"batch_cancelled"}
    assert {state for state, _ in recorded(server)} <= {"COMPLETED", "CANCELLED"}


def test_a_window_of_a_minute_and_a_file_of_nothing_good(server: Server) -> None:
    batch = ended(server, begun(server, b"{\n[]\n", completion_window="1m"))

    assert batch["status"] == "failed"
    assert batch["expires_at"] - batch["created_at"] == 60
    assert [fault["line"] for fault in batch["errors"]["data"]] == [1, 2]
