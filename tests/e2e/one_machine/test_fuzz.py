"""A short part of `make fuzz`, and proof that its judges can condemn."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.one_machine.running import Server
from tests.fuzz.campaign import all_routes, run
from tests.fuzz.ends import told_in_logs
from tests.fuzz.raw import judge
from tests.fuzz.stage import STRANGER, Stage
from tests.fuzz.verdict import faults_of

SEED, INPUTS = 5, 700
GOOD = {"message": "no", "type": "invalid_request_error", "param": None, "code": "x"}
HEADERS = {"content-type": "application/json", "x-request-id": "req-1"}


@pytest.mark.filterwarnings("ignore:Generating overly large repr")
def test_nothing_that_is_sent_breaks_the_server_or_makes_it_tell(tmp_path: Path) -> None:
    outcome = run(tmp_path, SEED, INPUTS, ["shapes", "raw"])

    found = {where: fault.shown() for where, fault in outcome.record.faults.items()}
    assert found == {}
    assert outcome.record.total >= INPUTS
    assert set(outcome.record.by_route) == set(all_routes())


def error(**changed: object) -> bytes:
    return json.dumps({"error": {**GOOD, **changed}}).encode()


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (500, HEADERS, error()),
        (400, HEADERS, b"no"),
        (400, HEADERS, error(message="")),
        (400, HEADERS, error(more=1)),
        (400, HEADERS, b'{"error": {"message": "no"}}'),
        (400, {**HEADERS, "content-type": "text/plain"}, error()),
        (400, {"content-type": "application/json"}, error()),
        (503, HEADERS, error()),
        (429, HEADERS, error()),
        (200, HEADERS, b'{"a": NaN}'),
        (200, HEADERS, b'{"text": "of-another"}'),
        (200, {**HEADERS, "location": "/of-another"}, b"{}"),
        (200, HEADERS, b'{"a": "Traceback (most recent call last)"}'),
        (200, {"x-request-id": "req-1"}, b"text"),
    ],
)
def test_a_bad_answer_is_seen(status: int, headers: dict[str, str], body: bytes) -> None:
    assert faults_of(status, headers, body, ["of-another"])


def test_good_answers_are_not_condemned() -> None:
    assert faults_of(400, HEADERS, error(), ["of-another"]) == []
    assert faults_of(200, HEADERS, b'{"text": "mine"}', ["of-another"]) == []
    assert faults_of(503, {**HEADERS, "retry-after": "1"}, error(), []) == []


def test_what_comes_over_a_socket_is_judged_answer_by_answer() -> None:
    fine = b"HTTP/1.1 204 No Content\r\nx-request-id: a\r\n\r\n"
    bad = b"HTTP/1.1 500 Oh\r\nx-request-id: a\r\ncontent-length: 2\r\n\r\nno"

    assert judge(b"", False, []) == (0, [])
    assert judge(fine * 2, False, []) == (204, [])
    assert judge(fine + bad, False, [])[1] != []
    assert judge(fine + b"garbage\r\n\r\n", False, [])[1] != []


@pytest.mark.parametrize(
    "line",
    [
        "Traceback (most recent call last):",
        "a prompt: {canary}",
        "a password: correct-horse",
        "sk-syn-" + "a" * 55,
        "whsec_" + "a" * 43,
        "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln",
    ],
)
def test_what_must_not_be_in_a_log_is_found_there(tmp_path: Path, line: str) -> None:
    stage = Stage(Server(tmp_path / "data", "echo"), secrets=["correct-horse"])
    first = "sk-syn-" + "f" * 55
    stage.server.log.write_text(f"Try it: {first}\nBearer {first}\n", encoding="utf-8")
    assert told_in_logs(stage) == []

    with stage.server.log.open("a", encoding="utf-8") as log:
        log.write(line.format(canary=stage.canaries[STRANGER]) + "\n")

    assert len(told_in_logs(stage)) == 1
