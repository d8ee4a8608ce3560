"""The deployed profiler: its state machine, its function, the runner that measures."""

from __future__ import annotations

import json
import time
from typing import Any

from tests.e2e.stack import Stack
from tests.patience import PATIENCE_S


def profiled(stack: Stack, wish: dict[str, Any], expected: str = "SUCCEEDED") -> Any:
    """The execution that the wish was given to, once it has ended."""
    client = stack.emulator.stepfunctions
    arn = client.start_execution(
        stateMachineArn=stack.outputs["ProfilerArn"], input=json.dumps(wish)
    )["executionArn"]
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        execution = client.describe_execution(executionArn=arn)
        if execution["status"] != "RUNNING":
            assert execution["status"] == expected, execution
            return execution
        time.sleep(0.5)
    raise AssertionError("the profiler has not ended")


def kept(stack: Stack) -> dict[str, Any]:
    page = stack.emulator.dynamodb.query(
        TableName=stack.outputs["RegistryTableName"],
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues={":pk": {"S": "profile"}},
    )
    return {item["sk"]["S"]: json.loads(item["doc"]["S"]) for item in page["Items"]}


def test_a_model_is_measured_on_its_pool_and_the_profile_kept(stack: Stack) -> None:
    profiled(stack, {"model": "echo", "pool": "primary", "force": True, "budgetSeconds": 3})

    profile = kept(stack)["echo#1#primary"]
    assert profile["samples"] > 20
    assert 0 < profile["base_ms"] < 1000
    assert profile["items_per_s"] > 1
    assert profile["best_batch"] >= 1

    # What has a profile is not measured again.
    profiled(stack, {"model": "echo"})
    assert kept(stack)["echo#1#primary"] == profile


def test_what_is_not_served_cannot_be_profiled(stack: Stack) -> None:
    execution = profiled(stack, {"model": "nobody"}, expected="FAILED")

    assert execution["error"] == "NotPlanned"
    assert "nothing is served of model 'nobody'" in execution["cause"]
