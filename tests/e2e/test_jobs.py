"""A job's way through the deployed application, over HTTP."""

from __future__ import annotations

import asyncio
import time

import pytest

from synapse.adapters.aws.in_flight import DynamoInFlight
from synapse.adapters.aws.registry import DynamoRegistry
from synapse.application.waiting import MOST_WAIT
from synapse.domain.access import ALL_SCOPES
from synapse.domain.job import SlaTier
from synapse.domain.model import ServiceSample
from synapse.ports import Entry
from tests.e2e.one_machine.fleets import until
from tests.e2e.stack import Stack
from tests.patience import PATIENCE_S

LLM = "smollm2-135m-instruct"
# Well over what a record holds (128 KB), well under what the API takes.
ALL = 100_000
"""More than any model has slots, and items than were run lately."""

LARGE_PROMPT = "Synapse " * 40_000


def test_a_prompt_becomes_text(stack: Stack) -> None:
    job_id = stack.submit(
        model=LLM, prompt="The future of AI is", parameters={"max_tokens": 16, "temperature": 0}
    )

    result = stack.result(job_id)

    assert result["status"] == "COMPLETED", result
    assert result["result"]["text"].strip()
    assert result["usage"]["completion_tokens"] > 0
    assert result["accelerator"] == "cpu"
    assert result["timings"]["total_ms"] > 0


def test_a_job_and_its_result_in_one_request(stack: Stack) -> None:
    answer = stack.call("POST", "/infer?wait=25", {"model": "echo", "prompt": "all in one"})

    result = answer.json()
    assert (answer.status, result["status"]) == (200, "COMPLETED"), result
    assert result["result"]["text"] == "all in one"
    assert stack.result(result["jobId"]) == result


@pytest.mark.parametrize("priority", ["high", "normal", "low"])
def test_every_priority_is_served(stack: Stack, priority: str) -> None:
    job_id = stack.submit(model="echo", prompt=f"hello {priority}", priority=priority)

    result = stack.result(job_id)

    assert result["status"] == "COMPLETED", result
    assert result["result"]["text"] == f"hello {priority}"


def test_the_second_shape_is_the_same_job(stack: Stack) -> None:
    submitted = stack.call("POST", "/api/inference", {"data": {"text": "Say hello."}})
    assert submitted.status == 202, submitted.body
    task_id = submitted.json()["task_id"]

    result = stack.result(task_id)

    seen = stack.call("GET", f"/api/inference/{task_id}").json()
    assert result["status"] == "COMPLETED"
    assert seen["status"] == "completed"


def test_a_bad_item_of_a_batch_does_not_reject_the_others(stack: Stack) -> None:
    requests = [{"data": {"text": text}, "model": "echo"} for text in ("one", "", "three")]

    answer = stack.call("POST", "/api/inference/batch", {"requests": requests})

    assert answer.status == 202, answer.body
    one, bad, three = answer.json()["results"]
    assert bad["error"]["param"] == "data.text"
    assert [stack.result(task["task_id"])["result"]["text"] for task in (one, three)] == [
        "one",
        "three",
    ]


def test_a_large_prompt_travels_through_the_bucket(stack: Stack) -> None:
    job_id = stack.submit(model="echo", prompt=LARGE_PROMPT)

    result = stack.result(job_id)

    assert result["status"] == "COMPLETED", {**result, "result": "…"}
    assert result["result"]["text"] == LARGE_PROMPT
    bucket = stack.outputs["BlobBucketName"]
    stored = stack.emulator.s3.list_objects_v2(Bucket=bucket, Prefix=f"jobs/{job_id}/")
    assert stored["KeyCount"] >= 1


def test_a_prompt_and_a_result_that_are_dear_in_a_record_lie_in_the_bucket(stack: Stack) -> None:
    """An ordinary job: its functions have the rights, from the API to the runner and back."""
    prompt = "Synapse " * 384  # 3 KiB

    job_id = stack.submit(model="echo", prompt=prompt)
    result = stack.result(job_id)

    assert result["status"] == "COMPLETED", {**result, "result": "…"}
    assert result["result"]["text"] == prompt
    bucket = stack.outputs["BlobBucketName"]
    stored = stack.emulator.s3.list_objects_v2(Bucket=bucket, Prefix=f"jobs/{job_id}/")
    names = {each["Key"].rpartition("/")[2].partition("-")[0] for each in stored["Contents"]}
    assert names == {"input", "result"}


def test_an_idempotency_key_makes_one_job_of_two_requests(stack: Stack) -> None:
    headers = {"Idempotency-Key": "e2e-1"}
    body = {"model": "echo", "prompt": "once"}

    first = stack.call("POST", "/async-infer", body, headers=headers)
    again = stack.call("POST", "/async-infer", body, headers=headers)
    other = stack.call("POST", "/async-infer", {**body, "prompt": "else"}, headers=headers)

    assert first.json()["jobId"] == again.json()["jobId"]
    assert other.status == 422


def test_a_cancelled_job_stays_cancelled(stack: Stack) -> None:
    assert stack.result(stack.cancelled())["status"] == "CANCELLED"


def test_a_job_that_misses_its_deadline_expires(stack: Stack) -> None:
    job_id = stack.submit(model="echo", prompt="!sleep:4000 late", timeout=1)

    assert stack.result(job_id)["status"] == "EXPIRED"


def test_what_was_begun_with_a_key_that_is_revoked_with_its_jobs_is_not_run(stack: Stack) -> None:
    """The API's gateway lets it in yet; the runner asks for itself."""
    key = stack.new_key(scopes=ALL_SCOPES, stops_at=time.time() - 1)
    body = {"model": "echo", "prompt": "who runs this?"}

    accepted = stack.call("POST", "/async-infer", body, api_key=key)
    result = stack.result(accepted.json()["jobId"])

    assert (result["status"], result["error"]["code"]) == ("FAILED", "key_revoked"), result


def test_bronze_without_room_is_kept_until_it_may_wait_at_a_runner_and_then_until_it_is_let_in(
    stack: Stack,
) -> None:
    dynamodb, table = stack.emulator.dynamodb, stack.outputs["RegistryTableName"]
    in_flight = DynamoInFlight(dynamodb, table)
    quick = ServiceSample("echo", "primary", ALL, 0.01 * ALL)
    asyncio.run(DynamoRegistry(dynamodb, table, (), ()).record_service(quick, time.time()))
    gathered = times_gathered(stack)

    def occupied(pool: str, items: int) -> Entry:
        until_s = time.time() + 2 * PATIENCE_S
        entering = in_flight.enter("echo", pool, items, items, until_s, SlaTier.BRONZE)
        entry = asyncio.run(entering)
        assert entry is not None
        return entry

    taken, places = occupied("primary", ALL), occupied("primary#waiting", MOST_WAIT)
    try:
        job_id = stack.submit(model="echo", prompt="when there is room")
        # Each look costs the emulator time in which the functions wait for it.
        until(lambda: times_gathered(stack) > gathered + 1, why="it was not kept on", every_s=0.5)
        assert status(stack, job_id) == "QUEUED"
        asyncio.run(in_flight.leave(places))
        # The echo is there at once: who runs and has not ended waits.
        until(
            lambda: status(stack, job_id) == "RUNNING", why="no runner waits for room", every_s=0.2
        )
        time.sleep(1.0)
        waits = status(stack, job_id)
    finally:
        asyncio.run(in_flight.leave(places))
        asyncio.run(in_flight.leave(taken))
    result = stack.result(job_id)

    assert waits == "RUNNING"
    assert result["status"] == "COMPLETED", result
    assert result["result"]["text"] == "when there is room"
    # Nobody is asked again for 5 s, and runs for as long.
    assert result["timings"]["queued_ms"] > 5000
    assert result["timings"]["queued_ms"] > result["timings"]["running_ms"]


def status(stack: Stack, job_id: str) -> str:
    answer = stack.call("GET", f"/results/{job_id}")
    return str(answer.json()["status"])


def times_gathered(stack: Stack) -> int:
    """How often the dispatcher has sent jobs on to be gathered."""
    return sum("there is no room" in line for line in stack.log("dispatch"))
