"""What breaks on the way, and what becomes of the jobs."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.e2e.stack import Stack
from tests.e2e.worker import Worker
from tests.patience import PATIENCE_S


def test_jobs_outlive_the_worker_that_ran_them(stack: Stack, triton: Worker) -> None:
    lose_a_worker(stack, triton)

    # On a busy machine the worker may have gone down before a job reached it.
    deadline = time.monotonic() + PATIENCE_S
    while not any('"message":"batch given back"' in line for line in stack.log("give_back")):
        assert time.monotonic() < deadline, "nothing was given back"
        lose_a_worker(stack, triton)


def lose_a_worker(stack: Stack, triton: Worker) -> None:
    ready = triton.times_ready()
    jobs = [stack.submit(model="echo", prompt=f"!sleep:3000 job {n}") for n in range(3)]
    wait_until_running(stack, jobs)

    triton.kill_triton()

    results = [stack.result(job_id) for job_id in jobs]
    # All may have been done before it went down.
    triton.daemon.wait_until(lambda: triton.times_ready() > ready, PATIENCE_S)
    assert [result["status"] for result in results] == ["COMPLETED"] * len(jobs), results


def wait_until_running(stack: Stack, jobs: list[str]) -> None:
    """Until a job is at the engine, and then some."""
    deadline = time.monotonic() + PATIENCE_S
    while not any(status(stack, job_id) == "RUNNING" for job_id in jobs):
        assert time.monotonic() < deadline, "no job was begun"
        time.sleep(0.3)  # each look costs the emulator time in which the functions wait for it
    time.sleep(0.5)


def status(stack: Stack, job_id: str) -> str:
    return str(stack.call("GET", f"/results/{job_id}").json()["status"])


def test_an_unreadable_message_is_parked_and_its_neighbours_are_served(stack: Stack) -> None:
    queue, letters = stack.outputs["NormalQueueUrl"], stack.outputs["NormalDeadLettersUrl"]
    sqs = stack.emulator.sqs
    before = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["VisibilityTimeout"])
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"VisibilityTimeout": "1"})
    try:
        sqs.send_message(QueueUrl=queue, MessageBody="this is no job message")
        job_id = stack.submit(model="echo", prompt="unharmed")

        assert stack.result(job_id)["status"] == "COMPLETED"
        parked = receive(stack, letters, timeout_s=PATIENCE_S)
    finally:
        sqs.set_queue_attributes(QueueUrl=queue, Attributes=dict(before["Attributes"].items()))
    assert parked["Body"] == "this is no job message"


def receive(stack: Stack, queue: str, timeout_s: float) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        answer = stack.emulator.sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1)
        if answer.get("Messages"):
            return answer["Messages"][0]
    raise AssertionError("nothing was parked")


def test_a_batch_falls_back_to_the_next_pool(stack: Stack) -> None:
    batch = order(stack, "fallback", ["gone", "primary"])

    ended = run_batcher(stack, [batch])

    assert ended == [{"batchId": "fallback", "outcome": "ran"}]


def test_a_batch_that_no_pool_can_run_is_given_back_and_harms_no_other(stack: Stack) -> None:
    stranded = order(stack, "stranded", ["gone"])
    lucky = order(stack, "lucky", ["primary"])

    ended = run_batcher(stack, [stranded, lucky])

    assert [(batch["batchId"], batch["outcome"]) for batch in ended] == [
        ("stranded", "given back"),
        ("lucky", "ran"),
    ]


def order(stack: Stack, batch_id: str, pools: list[str]) -> dict[str, Any]:
    """A batch of a job that does not exist, which a runner passes over."""
    runner = stack.outputs["RunBatchFunctionArn"]
    arns = {"primary": runner, "gone": runner.replace(":live", "-gone:live")}
    return {
        "batchId": batch_id,
        "model": "echo",
        "version": "1",
        "jobIds": ["0f8fad5bd9cb469fa16570867728950e"],
        "tokens": 1,
        "sla": "bronze",
        "fallback": "",
        "pools": [{"name": "primary", "runnerArn": arns[pool]} for pool in pools],
    }


def run_batcher(stack: Stack, batches: list[dict[str, Any]]) -> Any:
    execution = stack.emulator.stepfunctions.start_sync_execution(
        stateMachineArn=stack.outputs["BatcherArn"], input=json.dumps({"batches": batches})
    )
    assert execution["status"] == "SUCCEEDED", execution
    return json.loads(execution["output"])
