"""A file batch on the deployed application: its state machine, its function, its jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.e2e.stack import Stack
from tests.patience import PATIENCE_S, TRIES
from tests.unit.api.forms import FORM_TYPE, a_file, form, purpose

LLM = "smollm2-135m-instruct"
LINES = 60
BROKEN = {7: "{", 23: "[]", 41: '{"custom_id": "c41"}'}
ENDED = {"completed", "failed", "expired", "cancelled"}


def a_line(number: int, prompt: str = "", model: str = "echo", samples: int = 1) -> str:
    body = {"model": model, "prompt": prompt or f"line {number}", "max_tokens": 8, "n": samples}
    line = {"custom_id": f"c{number}", "method": "POST", "url": "/v1/completions", "body": body}
    return json.dumps(line)


def begun(stack: Stack, lines: list[str]) -> str:
    """A new batch of a file with these lines; its id."""
    body = form(purpose(), a_file("\n".join(lines).encode()))
    file = stack.call("POST", "/v1/files", body, headers={"Content-Type": FORM_TYPE})
    assert file.status == 200, file.body
    request = {
        "input_file_id": file.json()["id"],
        "endpoint": "/v1/completions",
        "completion_window": "1h",
    }
    batch = stack.call("POST", "/v1/batches", request)
    assert batch.status == 200, batch.body
    return str(batch.json()["id"])


def ended(stack: Stack, batch_id: str) -> dict[str, Any]:
    return until(stack, batch_id, ENDED)


def until(stack: Stack, batch_id: str, statuses: set[str]) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        batch: dict[str, Any] = stack.call("GET", f"/v1/batches/{batch_id}").json()
        if batch["status"] in statuses:
            return batch
        time.sleep(0.5)
    raise AssertionError(f"the batch has not become {statuses}: {batch}")


def lines_of(stack: Stack, file_id: str) -> list[dict[str, Any]]:
    content = stack.call("GET", f"/v1/files/{file_id}/content")
    assert content.status == 200, content.body
    return [json.loads(line) for line in content.body.splitlines()]


def test_a_batch_with_broken_lines_runs_to_its_end(stack: Stack) -> None:
    batch = ended(stack, begun(stack, [BROKEN.get(n) or a_line(n) for n in range(LINES)]))

    assert batch["status"] == "completed"
    assert batch["request_counts"] == {"total": 60, "completed": 57, "failed": 3}
    output = {line["custom_id"]: line for line in lines_of(stack, batch["output_file_id"])}
    assert {
        name: line["response"]["body"]["choices"][0]["text"] for name, line in output.items()
    } == {f"c{n}": f"line {n}" for n in range(LINES) if n not in BROKEN}
    errors = lines_of(stack, batch["error_file_id"])
    assert [line["error"]["line"] for line in errors] == [n + 1 for n in BROKEN]


def test_lines_that_ask_for_several_samples_are_run_beside_others(stack: Stack) -> None:
    """A job takes as many slots as it has samples."""
    asked = {f"c{n}": (1, 8)[n % 2] for n in range(8)}
    lines = [a_line(n, model=LLM, samples=samples) for n, samples in enumerate(asked.values())]

    batch = ended(stack, begun(stack, lines))

    assert batch["request_counts"] == {"total": 8, "completed": 8, "failed": 0}
    output = lines_of(stack, batch["output_file_id"])
    answered = {line["custom_id"]: line["response"]["body"]["choices"] for line in output}
    assert {name: len(choices) for name, choices in answered.items()} == asked


def test_a_cancelled_batch_ends_soon_and_its_executions_with_it(stack: Stack) -> None:
    batch_id = begun(stack, [a_line(n) for n in range(2000)])

    cancelled = stack.call("POST", f"/v1/batches/{batch_id}/cancel")
    batch = ended(stack, batch_id)

    assert cancelled.json()["status"] == "cancelling"
    assert batch["status"] == "cancelled"
    machine = stack.outputs["FileBatcherArn"]
    deadline = time.monotonic() + PATIENCE_S
    while running := stack.emulator.stepfunctions.list_executions(
        stateMachineArn=machine, statusFilter="RUNNING"
    )["executions"]:
        assert time.monotonic() < deadline, running
        time.sleep(0.5)
    ends = stack.emulator.stepfunctions.list_executions(stateMachineArn=machine)["executions"]
    assert {execution["status"] for execution in ends} == {"SUCCEEDED"}


def test_another_execution_goes_on_with_a_batch_that_takes_many_steps(stack: Stack) -> None:
    """As after a thousand steps of one, here after each; one line takes several."""
    lines = [*map(a_line, range(LINES - 1)), a_line(LINES - 1, "!sleep:4000 the last one")]
    with steps_of_an_execution(stack, 1):
        batch_id = begun(stack, lines)
        batch = ended(stack, batch_id)

    assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
    executions = stack.emulator.stepfunctions.list_executions(
        stateMachineArn=stack.outputs["FileBatcherArn"]
    )["executions"]
    its_own = {each["name"]: each["status"] for each in executions if batch_id in each["name"]}
    (first,) = [name for name in its_own if f"{name}-2" in its_own]
    assert f"{first}-3" in its_own
    assert its_own[first] == its_own[f"{first}-2"] == "SUCCEEDED"


@contextmanager
def steps_of_an_execution(stack: Stack, steps: int) -> Iterator[None]:
    """The file batcher with another limit meanwhile."""
    client, arn = stack.emulator.stepfunctions, stack.outputs["FileBatcherArn"]
    definition = client.describe_state_machine(stateMachineArn=arn)["definition"]
    fewer = definition.replace("$steps >= 1000", f"$steps >= {steps}")
    assert fewer != definition
    client.update_state_machine(stateMachineArn=arn, definition=fewer)
    try:
        yield
    finally:
        client.update_state_machine(stateMachineArn=arn, definition=definition)


def test_a_batch_that_nobody_drives_is_started_again_by_the_pinger(stack: Stack) -> None:
    batch_id = next(filter(None, (forsaken(stack) for _ in range(TRIES))))
    is_restarted_once_it_looks_forgotten(stack, batch_id)

    batch = ended(stack, batch_id)
    assert batch["request_counts"] == {"total": LINES, "completed": LINES, "failed": 0}
    assert stack.invoke("PingFunctionArn", {})["restarted"] == []


def forsaken(stack: Stack) -> str | None:
    """A batch in progress whose execution was stopped; None if it was over before that."""
    lines = [*map(a_line, range(LINES - 1)), a_line(LINES - 1, "!sleep:3000 the last one")]
    batch_id = begun(stack, lines)
    until(stack, batch_id, {"in_progress", *ENDED})
    stop_executions(stack)
    batch = stack.call("GET", f"/v1/batches/{batch_id}").json()
    return batch_id if batch["status"] == "in_progress" else None


def stop_executions(stack: Stack) -> None:
    machine = stack.outputs["FileBatcherArn"]
    client = stack.emulator.stepfunctions
    running = client.list_executions(stateMachineArn=machine, statusFilter="RUNNING")["executions"]
    for execution in running:
        client.stop_execution(executionArn=execution["executionArn"])


def is_restarted_once_it_looks_forgotten(stack: Stack, batch_id: str) -> None:
    """The step that ran when the execution was stopped may still write its checkpoint."""
    deadline = time.monotonic() + PATIENCE_S
    restarted: list[str] = []
    while not restarted:
        assert time.monotonic() < deadline, "the batch is left to itself"
        forget_for(stack, batch_id, seconds=600)
        restarted = stack.invoke("PingFunctionArn", {})["restarted"]
    assert restarted == [batch_id]


def forget_for(stack: Stack, batch_id: str, seconds: float) -> None:
    """Let the record look as if nobody had worked on the batch for so long."""
    client, table = stack.emulator.dynamodb, stack.outputs["FilesTableName"]
    key = {"pk": {"S": "batches#default"}, "sk": {"S": batch_id}}
    item = client.get_item(TableName=table, Key=key, ConsistentRead=True)["Item"]
    record = json.loads(item["doc"]["S"])
    assert record["status"] == "in_progress"
    record["advanced_at"] -= seconds
    item["doc"]["S"] = json.dumps(record)
    client.put_item(TableName=table, Item=item)
