"""Rules for the state machines that no linter knows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from synapse.adapters.codec import give_back_order_from_event
from tests.infra.translation import ROOT

State = dict[str, Any]
FOLDER = ROOT / "statemachines"
BATCHER = json.loads((FOLDER / "batcher.asl.json").read_text())
FILE_BATCH = json.loads((FOLDER / "file_batch.asl.json").read_text())
PROFILER = json.loads((FOLDER / "profiler.asl.json").read_text())
MACHINES = {"batcher": BATCHER, "file_batch": FILE_BATCH, "profiler": PROFILER}
FUNCTION_OF = {
    "${GiveBackArn}": "GiveBackFunction",
    "${AdvanceBatchArn}": "AdvanceBatchFunction",
    "${ProfileArn}": "ProfileFunction",
}


def states(machine: dict[str, Any]) -> Iterator[tuple[str, State]]:
    for name, state in machine["States"].items():
        yield name, state
        if "ItemProcessor" in state:
            yield from states(state["ItemProcessor"])


def states_of_type(kind: str) -> list[Any]:
    found = [
        (name, state)
        for machine in MACHINES.values()
        for name, state in states(machine)
        if state["Type"] == kind
    ]
    assert found
    return [pytest.param(state, id=name) for name, state in found]


def test_these_are_all_the_machines() -> None:
    assert {f"{name}.asl.json" for name in MACHINES} == {path.name for path in FOLDER.iterdir()}


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_the_machine_speaks_jsonata_throughout(machine: dict[str, Any]) -> None:
    assert machine["QueryLanguage"] == "JSONata"
    assert not any("QueryLanguage" in state for _, state in states(machine))


@pytest.mark.parametrize("task", states_of_type("Task"))
def test_a_task_ends_in_time_retries_with_jitter_and_catches_everything(task: State) -> None:
    assert 0 < task["TimeoutSeconds"] <= 310
    for retry in task["Retry"]:
        assert "States.ALL" not in retry["ErrorEquals"]
        assert retry["JitterStrategy"] == "FULL"
        assert retry["MaxDelaySeconds"] <= 10
        assert retry["MaxAttempts"] <= 3
    assert task["Catch"][-1]["ErrorEquals"] == ["States.ALL"]


@pytest.mark.parametrize("task", states_of_type("Task"))
def test_a_caught_error_is_kept(task: State) -> None:
    for catch in task["Catch"]:
        assert "$states.errorOutput" in json.dumps([catch.get("Assign"), catch.get("Output")])


def invocations() -> list[Any]:
    return [
        each for each in states_of_type("Task") if "FunctionName" in each.values[0]["Arguments"]
    ]


@pytest.mark.parametrize("task", invocations())
def test_a_task_outlasts_its_function(task: State) -> None:
    """Or the function would still be writing when the batch is given away."""
    from tests.infra.translation import translated

    function = str(task["Arguments"]["FunctionName"])
    name = FUNCTION_OF.get(function, "RunBatchFunction")
    timeout_s = translated()["Resources"][name]["Properties"]["Timeout"]

    assert task["TimeoutSeconds"] > timeout_s


@pytest.mark.parametrize("state", states_of_type("Map"))
def test_a_map_runs_as_many_at_once_as_it_may(state: State) -> None:
    assert state["MaxConcurrency"] == 40
    assert "ToleratedFailurePercentage" not in state


@pytest.mark.parametrize("state", states_of_type("Fail"))
def test_a_failure_says_what_and_why(state: State) -> None:
    assert state["Error"]
    assert state["Cause"]


REFUSED = (
    *("TooManyRequestsException", "ServiceException", "AWSLambdaException", "SdkClientException"),
    *("ResourceNotReadyException", "ResourceConflictException", "ENINotReadyException"),
    *("CodeArtifactUserPendingException", "ENILimitReachedException", "EC2ThrottledException"),
    *("SubnetIPAddressLimitReachedException", "EC2UnexpectedException"),
)
"""Invocations that Lambda did not begin."""


@pytest.mark.parametrize("name", [*REFUSED, "ResourceNotFoundException"])
def test_what_lambda_refuses_costs_no_worker_and_goes_to_the_next_pool(name: str) -> None:
    error = f"Lambda.{name}"
    task = dict(states(BATCHER["States"]["Run batches"]["ItemProcessor"]))["Run on pool"]
    event = {"batchId": "b", "jobIds": ["j"], "error": {"Error": error, "Cause": ""}}

    assert error in task["Catch"][0]["ErrorEquals"]
    assert not give_back_order_from_event(event).lost


@pytest.mark.parametrize("task", invocations())
def test_what_lambda_refuses_is_tried_again(task: State) -> None:
    retried = {error for retry in task["Retry"] for error in retry["ErrorEquals"]}

    assert "States.TaskFailed" in retried or {f"Lambda.{name}" for name in REFUSED} <= retried


def test_the_profiler_waits_for_a_runner_that_lambda_cannot_start_yet() -> None:
    measure = dict(states(PROFILER["States"]["Each pool"]["ItemProcessor"]))["Measure"]

    assert {f"Lambda.{name}" for name in REFUSED} <= set(measure["Catch"][0]["ErrorEquals"])


@pytest.mark.parametrize("machine", [BATCHER, PROFILER], ids=["batcher", "profiler"])
def test_no_failure_inside_the_map_so_that_none_fails_another(machine: dict[str, Any]) -> None:
    inner = next(state["ItemProcessor"] for _, state in states(machine) if state["Type"] == "Map")

    assert not [name for name, state in states(inner) if state["Type"] == "Fail"]
