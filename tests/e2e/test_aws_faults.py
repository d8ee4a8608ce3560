"""AWS as it is on a bad day, beneath the deployed functions; `make chaos ARGS=--aws` has worse."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from synapse.domain.access import Limits
from tests.e2e.stack import Answer, Stack

JOBS = 6
PATIENCE_S = 600.0
"""What is lost for good is sent again after two minutes, and if that is lost too after four."""

BAD_DAY = {"throttled": 0.1, "lost": 0.05, "twice": 0.4, "late": 0.3, "partial": 0.3}
SEED = 20261121


@pytest.fixture
def bad_day(stack: Stack) -> Iterator[None]:
    stack.emulator.harm(BAD_DAY, SEED)
    yield
    stack.emulator.harm({})


@pytest.mark.usefixtures("bad_day")
def test_every_job_ends_once_though_calls_fail_and_messages_come_twice_and_late(
    stack: Stack,
) -> None:
    key = stack.new_key("bad-day", limits=Limits(concurrent_jobs=JOBS))
    jobs = {submit(stack, key, number): f"job {number}" for number in range(JOBS)}
    assert len(jobs) == JOBS, "one key, one job"

    ends = {job_id: ended(stack, key, job_id) for job_id in jobs}

    happened = stack.emulator.harm({})
    assert happened["throttled"] > 0
    assert happened["twice"] + happened["late"] + happened["partial"] > 0
    assert {job_id: end["result"]["text"] for job_id, end in ends.items()} == jobs
    counted = until_counted(stack, key)
    assert counted == JOBS


def submit(stack: Stack, key: str, number: int) -> str:
    """Send a job as a client does, under one idempotency key, until it is accepted."""

    def send() -> Answer:
        return stack.call(
            "POST",
            "/async-infer",
            {"model": "echo", "prompt": f"job {number}"},
            headers={"Idempotency-Key": f"bad-day-{number}"},
            api_key=key,
        )

    answer = patiently(send, 202)
    job_id: str = answer.json()["jobId"]
    return job_id


def ended(stack: Stack, key: str, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        answer = patiently(lambda: stack.call("GET", f"/results/{job_id}?wait=5", api_key=key), 200)
        body: dict[str, Any] = answer.json()
        if body["status"] not in ("QUEUED", "RUNNING"):
            assert body["status"] == "COMPLETED", body
            return body
    raise AssertionError(f"{job_id} has not ended")


def until_counted(stack: Stack, key: str) -> int:
    """How many jobs are in the usage of the tenant: in the end all, and none of them twice."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = patiently(lambda: stack.call("GET", "/v1/usage", api_key=key), 200)
        counted: int = answer.json()["total"]["requests"]
        if counted >= JOBS or time.monotonic() > deadline:
            return counted
        time.sleep(1.0)


def patiently(send: Callable[[], Answer], status: int) -> Answer:
    """What is answered once it is no error of ours."""
    deadline = time.monotonic() + PATIENCE_S
    while (answer := send()).status >= 500 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert answer.status == status, answer.body
    return answer
