"""What the deployed API refuses, and in which words; nothing refused is enqueued."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.stack import Answer, Stack

GOOD = {"model": "echo", "prompt": "hello"}


def error_of(answer: Answer) -> dict[str, Any]:
    body = answer.json()
    assert set(body) == {"error"}, body
    assert set(body["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    return error


@pytest.mark.parametrize(
    ("change", "status", "param"),
    [
        ({"model": "no-such-model"}, 404, "model"),
        ({"prompt": ""}, 400, "prompt"),
        ({"prompt": 7}, 400, "prompt"),
        ({"parameters": {"max_tokens": -1}}, 400, "parameters.max_tokens"),
        ({"priority": "urgent"}, 400, "priority"),
    ],
)
def test_a_bad_field_is_named(
    stack: Stack, change: dict[str, Any], status: int, param: str
) -> None:
    answer = stack.call("POST", "/async-infer", {**GOOD, **change})

    assert answer.status == status, answer.body
    assert error_of(answer)["param"] == param


def test_malformed_json_is_refused(stack: Stack) -> None:
    answer = stack.call("POST", "/async-infer", b"{not json")

    assert answer.status == 400
    assert error_of(answer)["code"] == "invalid_json"


def test_a_prompt_of_ten_megabytes_is_too_large(stack: Stack) -> None:
    answer = stack.call("POST", "/async-infer", {**GOOD, "prompt": "x" * 10_000_000})

    assert answer.status == 413
    assert error_of(answer)["code"] == "payload_too_large"


def test_nothing_refused_is_enqueued(stack: Stack) -> None:
    before = jobs_recorded(stack)

    stack.call("POST", "/async-infer", {**GOOD, "priority": "urgent"})

    assert jobs_recorded(stack) == before


def jobs_recorded(stack: Stack) -> int:
    table = stack.outputs["JobsTableName"]
    return stack.emulator.dynamodb.scan(TableName=table, Select="COUNT")["Count"]


def test_an_unknown_job_is_not_found(stack: Stack) -> None:
    answer = stack.call("GET", "/results/0f8fad5bd9cb469fa16570867728950e")

    assert answer.status == 404
    assert error_of(answer)["code"] == "job_not_found"


def test_api_gateway_knows_no_other_routes_and_says_so_in_our_words(stack: Stack) -> None:
    answer = stack.call("GET", "/no/such/route")

    assert answer.status == 404
    assert error_of(answer)["code"] == "route_not_found"
