"""What the deployed functions log: metrics and ids, and never a prompt, a key or a token."""

from __future__ import annotations

import json
import re
import time

import pytest

from synapse.observability import NAMESPACE
from tests.e2e.stack import FUNCTIONS, Stack

SECRET = "xylophone-in-the-prompt"
KEY = re.compile(r"sk-syn-[0-9A-Za-z]{13}")
"""More of a key than its id."""

TOKEN = f"eyJhbGciOiJSUzI1NiJ9.{SECRET}.c2lnbmF0dXJl"


@pytest.fixture(scope="module")
def refused_key(stack: Stack) -> str:
    """One that was good once."""
    return stack.new_key(expires_at=time.time() - 1)


@pytest.fixture(scope="module")
def job_id(stack: Stack, refused_key: str) -> str:
    """A job that has gone all the way, with words that must not appear in any log."""
    job_id = stack.submit(model="echo", prompt=SECRET, metadata={"note": SECRET})
    assert stack.result(job_id)["result"]["text"] == SECRET
    stack.call("POST", "/async-infer", {"model": "echo", "prompt": SECRET, "priority": SECRET})
    stack.call("POST", "/async-infer", f"{{{SECRET}".encode())
    stack.call("POST", "/v1/chat/completions", {"model": SECRET, "messages": [{"role": SECRET}]})
    stack.call("POST", "/v1/embeddings", {"model": "all-minilm-l6-v2", "input": SECRET})
    stack.call("GET", f"/results/{SECRET}")
    stack.call("POST", "/api/auth/login", {"username": SECRET, "password": SECRET})
    stack.call("POST", "/api/webhooks", {"url": f"https://{SECRET}.example.com/{SECRET}"})
    for credential in (refused_key, TOKEN, SECRET):
        assert stack.call("GET", "/v1/models", api_key=credential).status == 401
    stack.emulator.sqs.send_message(
        QueueUrl=stack.outputs["HighQueueUrl"], MessageBody=f"no job message: {SECRET}"
    )
    # What is behind that message in its queue has ended: it has been looked at.
    stack.result(stack.submit(model="echo", prompt=SECRET, priority="high"))
    return job_id


@pytest.fixture(scope="module")
def logs(stack: Stack, job_id: str) -> dict[str, list[str]]:
    """All that was logged so far, by group: to read it takes the emulator a while."""
    time.sleep(2.0)  # so that it has also the last words of who told others of the ends
    client = stack.emulator.session.client("logs", endpoint_url=stack.emulator.url)
    groups = [
        group["logGroupName"]
        for page in client.get_paginator("describe_log_groups").paginate()
        for group in page["logGroups"]
        if stack.name in group["logGroupName"]
    ]
    return {
        group: [
            event["message"]
            for page in client.get_paginator("filter_log_events").paginate(logGroupName=group)
            for event in page["events"]
        ]
        for group in groups
    }


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_prompt_and_no_result_is_logged(
    stack: Stack, logs: dict[str, list[str]], function: str
) -> None:
    lines = logs[stack.log_group(function)]

    assert [line for line in lines if SECRET in line] == []


def test_no_log_of_any_kind_has_a_prompt_a_key_or_a_token(
    logs: dict[str, list[str]], refused_key: str
) -> None:
    """Also those of the state machines. Of a key there is its id, which opens nothing."""
    lines = [line for group in logs.values() for line in group]

    assert len(logs) > len(FUNCTIONS) - 1
    assert [line for line in lines if SECRET in line or TOKEN in line] == []
    assert [line for line in lines if KEY.search(line)] == []
    assert any(refused_key[7:19] in line for line in lines), "a refusal is to be found by its key"


@pytest.mark.usefixtures("job_id")
@pytest.mark.parametrize(
    ("function", "metrics"),
    [
        ("api", {"JobsSubmitted"}),
        ("run_batch", {"JobsCompleted", "TotalMs", "TokensOut", "BatchSize"}),
    ],
)
def test_a_job_leaves_its_metrics(stack: Stack, function: str, metrics: set[str]) -> None:
    entries = [json.loads(line) for line in stack.log(function) if line.startswith('{"_aws"')]

    directives = [
        directive for entry in entries for directive in entry["_aws"]["CloudWatchMetrics"]
    ]
    assert {directive["Namespace"] for directive in directives} == {NAMESPACE}
    assert metrics <= {metric["Name"] for d in directives for metric in d["Metrics"]}


def test_a_batch_can_be_followed_by_its_id(stack: Stack, job_id: str) -> None:
    entries = [json.loads(line) for line in stack.log("run_batch") if '"batch done"' in line]

    assert entries
    assert all(entry["batch_id"] and entry["model"] and entry["pool"] for entry in entries)
