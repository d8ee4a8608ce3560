"""What was used of the deployed application: each job once, with its receipt."""

from __future__ import annotations

import time
from typing import Any

from tests.e2e.stack import Stack
from tests.patience import PATIENCE_S


def usage(stack: Stack) -> dict[str, Any]:
    answer = stack.call("GET", "/v1/usage?group_by=model")
    assert answer.status == 200, answer.body
    rows: list[dict[str, Any]] = answer.json()["data"]
    return next((row for row in rows if row["name"] == "echo"), {"requests": 0, "prompt_tokens": 0})


def test_jobs_are_counted_once_and_their_results_have_receipts(stack: Stack) -> None:
    before = usage(stack)
    ids = [stack.submit(model="echo", prompt=f"count me {number}") for number in range(5)]

    results = [stack.result(job_id) for job_id in ids]

    for result in results:
        assert result["status"] == "COMPLETED", result
        assert result["receipt"]["pool"] == result["pool"]
        assert result["receipt"]["inference_ms"] == result["timings"]["running_ms"]
        assert result["cost"]["total_usd"] >= result["cost"]["active_usd"] > 0
    tokens = sum(result["usage"]["prompt_tokens"] for result in results)
    deadline = time.monotonic() + PATIENCE_S  # an end shows before it is counted
    while (after := usage(stack))["requests"] < before["requests"] + 5:
        assert time.monotonic() < deadline, "not all ends are counted"
        time.sleep(0.2)
    time.sleep(1.0)
    after = usage(stack)
    assert after["requests"] == before["requests"] + 5
    assert after["prompt_tokens"] == before["prompt_tokens"] + tokens


def test_the_report_comes_as_csv(stack: Stack) -> None:
    answer = stack.call("GET", "/v1/usage?format=csv")

    assert answer.status == 200, answer.body
    assert answer.body.decode().startswith("day,requests,errors,prompt_tokens,")
