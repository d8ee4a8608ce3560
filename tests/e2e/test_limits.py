"""Limits at the deployed door: counted by several functions, in one table."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from synapse.domain.access import Limits
from tests.e2e.stack import Answer, Stack
from tests.e2e.test_refusals import GOOD, error_of
from tests.patience import PATIENCE_S

AT_ONCE = 3
"""As many environments as the machine of the tests starts within a request's patience."""


def sleep_into_minute(seconds_left: float) -> None:
    """Wait for the next minute, unless so much is left of this one."""
    if (left_s := 60 - time.time() % 60) < seconds_left:
        time.sleep(left_s + 0.05)


def header(answer: Answer, name: str) -> str:
    """The header of that name, however it is spelled."""
    [value] = [value for key, value in answer.headers.items() if key.lower() == name]
    return value


def meters(stack: Stack, tenant: str) -> list[dict[str, Any]]:
    """The tenant's meters, and its open reservations."""
    answer = stack.emulator.dynamodb.query(
        TableName=stack.outputs["AccessTableName"],
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": f"meter#{tenant}"}},
    )
    return list(answer["Items"])


def test_of_requests_at_once_as_many_get_in_as_the_limit_says(stack: Stack) -> None:
    key = stack.new_key("burst", limits=Limits(requests_per_minute=4))

    def burst(calls: int, api_key: str = "") -> list[Answer]:
        with ThreadPoolExecutor(AT_ONCE) as callers:
            calling = [
                callers.submit(stack.call, "POST", "/async-infer", GOOD, api_key=api_key)
                for _ in range(calls)
            ]
            return [each.result() for each in calling]

    burst(AT_ONCE)  # each in an environment that starts
    sleep_into_minute(30)
    answers = burst(12, api_key=key)
    assert Counter(answer.status for answer in answers) == {202: 4, 429: 8}
    refused = [answer for answer in answers if answer.status == 429]
    for answer in refused:
        assert error_of(answer)["code"] == "rate_limit_exceeded"
        assert 0 < int(header(answer, "retry-after")) <= 60
        assert header(answer, "x-ratelimit-remaining-requests") == "0"


def test_what_is_under_way_is_counted_until_another_function_has_ended_it(stack: Stack) -> None:
    key = stack.new_key("ended", limits=Limits(concurrent_jobs=1, monthly_usd=100.0))

    def submit() -> Answer:
        return stack.call("POST", "/async-infer", GOOD, api_key=key)

    first = submit()
    assert first.status == 202, first.body
    assert submit().status == 429
    deadline = time.monotonic() + PATIENCE_S
    path = f"/results/{first.json()['jobId']}"
    while stack.call("GET", path, api_key=key).json()["status"] != "COMPLETED":
        assert time.monotonic() < deadline
        time.sleep(0.5)
    while (again := submit()).status != 202:
        assert time.monotonic() < deadline, again.body
        time.sleep(0.2)
    assert stack.call("DELETE", f"/results/{again.json()['jobId']}", api_key=key).status in (
        200,
        409,
    )
    while [item for item in meters(stack, "ended") if item["sk"]["S"].startswith("open#")]:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    [meter] = meters(stack, "ended")
    assert meter["open"] == {"N": "0"}


def test_requests_on_the_line_are_counted_and_settled(stack: Stack) -> None:
    limits = Limits(requests_per_minute=2, tokens_per_minute=1000)
    key = stack.new_key("line", limits=limits)
    body = {"model": "echo", "prompt": "hello", "max_tokens": 5}
    sleep_into_minute(30)
    for left in ("1", "0"):
        answer = stack.call("POST", "/v1/completions", body, api_key=key)
        assert answer.status == 200, answer.body
        assert header(answer, "x-ratelimit-remaining-requests") == left
    assert stack.call("POST", "/v1/completions", body, api_key=key).status == 429
    [meter] = meters(stack, "line")
    [tokens] = [int(value["N"]) for name, value in meter.items() if name.startswith("t")]
    usage = answer.json()["usage"]["total_tokens"]
    assert tokens == 2 * usage


def test_a_budget_that_is_used_up_is_not_tried_again(stack: Stack) -> None:
    key = stack.new_key("spent", limits=Limits(monthly_usd=1e-12))
    answer = stack.call("POST", "/async-infer", GOOD, api_key=key)
    assert (answer.status, error_of(answer)["code"]) == (429, "insufficient_quota")
    assert header(answer, "x-should-retry") == "false"
    assert meters(stack, "spent") == []
