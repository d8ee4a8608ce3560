"""Webhooks of the deployed application: from the tables' streams, through SQS, to a receiver."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.e2e.hooks import Hooks
from tests.e2e.stack import Stack
from tests.patience import PATIENCE_S, TRIES


def delivered(stack: Stack, query: str) -> dict[str, Any]:
    """The one delivery, once it has been made."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        answer = stack.call("GET", f"/api/webhooks/deliveries?{query}")
        assert answer.status == 200, answer.body
        found = answer.json()["data"]
        if found and found[0]["status"] == "delivered":
            (seen,) = found
            return dict(seen)
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def test_the_end_of_a_job_comes_signed(stack: Stack, hooks: Hooks) -> None:
    rotated = stack.call("POST", "/api/webhooks/callbacks/rotate")
    assert rotated.status == 201, rotated.body
    job = stack.submit(model="echo", prompt="Hi", callback_url=hooks.url("/aws/done"))

    hook = hooks.at("/aws/done")[0]

    event = hook.event(rotated.json()["secret"])
    assert (event["type"], event["data"]) == (
        "job.completed",
        {"id": job, "object": "job", "status": "completed"},
    )
    assert delivered(stack, f"job={job}")["attempts"] == 1


def test_a_receiver_that_fails_gets_it_again(stack: Stack, hooks: Hooks) -> None:
    job = stack.submit(model="echo", prompt="Hi", callback_url=hooks.url("/aws/flaky", 503))

    first, second = hooks.at("/aws/flaky", 2)[:2]

    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    seen = delivered(stack, f"job={job}")
    assert (seen["attempts"], seen["last_status_code"]) == (2, 200)


def test_a_webhook_is_told_of_jobs_and_of_batches(stack: Stack, hooks: Hooks) -> None:
    body = {"url": hooks.url("/aws/hook"), "events": ["job.cancelled", "batch.cancelled"]}
    made = stack.call("POST", "/api/webhooks", body).json()
    # What the function knows of who listens may be ten seconds old.
    time.sleep(10.5)
    job = stack.cancelled()
    batch = a_cancelled_batch(stack)

    came = {hook.headers["webhook-id"]: hook for hook in hooks.at("/aws/hook", 2)}

    events = [hook.event(made["secret"]) for hook in came.values()]
    assert {(event["type"], event["data"]["id"]) for event in events} == {  # type: ignore[index]
        ("job.cancelled", job),
        ("batch.cancelled", batch),
    }
    assert stack.call("DELETE", f"/api/webhooks/{made['id']}").status == 200
    assert delivered(stack, f"batch={batch}")["webhook"] == made["id"]


def a_cancelled_batch(stack: Stack) -> str:
    line = {"model": "echo", "prompt": "!sleep:3000 late"}
    request = {"custom_id": "1", "method": "POST", "url": "/v1/completions", "body": line}
    form = (
        '--x\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
        '--x\r\ncontent-disposition: form-data; name="file"; filename="in.jsonl"\r\n\r\n'
        f"{json.dumps(request)}\r\n--x--\r\n"
    )
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    file = stack.call("POST", "/v1/files", form.encode(), headers=headers).json()["id"]
    wish = {"input_file_id": file, "endpoint": "/v1/completions", "completion_window": "24h"}
    for _ in range(TRIES):
        batch: str = stack.call("POST", "/v1/batches", wish).json()["id"]
        cancelled = stack.call("POST", f"/v1/batches/{batch}/cancel")
        if cancelled.status == 200:
            return batch
        assert cancelled.status == 409, cancelled.body
    raise AssertionError("each was over before it could be cancelled")


def test_nothing_goes_to_a_private_address(stack: Stack) -> None:
    for url in ("https://169.254.169.254/", "http://127.0.0.1:1/", "https://localhost/"):
        body = {"model": "echo", "prompt": "Hi", "callback_url": url}
        refused = stack.call("POST", "/async-infer", body)
        assert (refused.status, refused.json()["error"]["param"]) == (400, "callback_url")


def test_no_secret_and_no_prompt_is_in_a_log(stack: Stack, hooks: Hooks) -> None:
    secret = stack.call("POST", "/api/webhooks/callbacks/rotate").json()["secret"]
    url = hooks.url("/aws/log?token=hush")
    stack.submit(model="echo", prompt="a telling prompt", callback_url=url)
    hooks.at("/aws/log?token=hush")
    time.sleep(1)

    for function in ("api", "announce", "deliver"):
        log = "\n".join(stack.log(function))
        assert log
        for hidden in (secret, "hush", "a telling prompt"):
            assert hidden not in log
