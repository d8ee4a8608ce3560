"""What the deployed functions write to their logs: metrics and ids, and never a prompt."""

from __future__ import annotations

import json

import pytest

from synapse.observability import NAMESPACE
from tests.e2e.stack import FUNCTIONS, Stack

SECRET = "xylophone-in-the-prompt"


@pytest.fixture(scope="module")
def job_id(stack: Stack) -> str:
    """A job that has gone all the way, with words that must not appear in any log."""
    job_id = stack.submit(model="echo", prompt=SECRET, metadata={"note": SECRET})
    assert stack.result(job_id)["result"]["text"] == SECRET
    stack.call("POST", "/async-infer", {"model": "echo", "prompt": SECRET, "priority": SECRET})
    stack.call("POST", "/async-infer", f"{{{SECRET}".encode())
    stack.emulator.sqs.send_message(
        QueueUrl=stack.outputs["HighQueueUrl"], MessageBody=f"no job message: {SECRET}"
    )
    return job_id


@pytest.mark.usefixtures("job_id")
@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_prompt_and_no_result_is_logged(stack: Stack, function: str) -> None:
    lines = stack.log(function)

    assert [line for line in lines if SECRET in line] == []


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
