"""A file batch's state machine, run: it goes on until the batch has ended, whatever fails."""

from __future__ import annotations

from typing import Any

from tests.infra import asl

MACHINE = asl.machine("file_batch")
BATCH = {"tenant": "acme", "batchId": "batch_1"}
NOT_YET: dict[str, Any] = {"payload": {"done": False, "waitSeconds": 2}}
DONE = {"payload": {"done": True, "waitSeconds": 0}}
UNAVAILABLE: dict[str, Any] = {"error": "Unavailable", "cause": "no table"}
STEPS = 1000
"""Steps of an execution, of nine events each, or 18 where all tries fail: its history has room."""

pytestmark = asl.needs_node


def run(
    *steps: dict[str, Any], going_on: dict[str, Any] | None = None, given: Any = BATCH
) -> tuple[Any, list[Any], list[Any]]:
    """How it ended, the payloads of its steps, and the executions it began."""
    began = [going_on or {"payload": {}}]
    ended = asl.run(MACHINE, given, {"Advance": list(steps), "Go on in another": began})
    assert ended["status"] == "SUCCEEDED", ended
    assert ended["output"] == {"batchId": given["batchId"]}
    by_state: dict[str, list[Any]] = {"Advance": [], "Go on in another": []}
    for call in ended["calls"]:
        by_state[call.pop("state")].append(call)
    return ended, [each["payload"] for each in by_state["Advance"]], by_state["Go on in another"]


def test_it_steps_until_the_batch_has_ended_and_waits_as_long_as_it_is_told() -> None:
    ended, steps, begun = run(NOT_YET, NOT_YET, DONE)

    assert steps == [BATCH] * 3
    assert ended["waits"] == 4
    assert begun == []


def test_whatever_fails_is_tried_again_a_minute_later() -> None:
    ended, steps, begun = run(UNAVAILABLE, NOT_YET, {"error": "Whatever"}, DONE)

    assert len(steps) == 4
    assert ended["waits"] == 60 + 2 + 60
    assert begun == []


def test_another_execution_goes_on_before_the_history_is_full() -> None:
    _, steps, begun = run(NOT_YET)

    assert len(steps) == STEPS
    goes_on = {**BATCH, "series": "the-execution", "number": 2}
    assert begun == [
        {"StateMachineArn": "arn:the-machine", "Name": "the-execution-2", "Input": goes_on}
    ]


def test_steps_that_fail_fill_the_history_too() -> None:
    _, steps, begun = run(*[*[UNAVAILABLE] * 4, NOT_YET] * (STEPS // 5))

    assert len(steps) == STEPS
    assert len(begun) == 1


def test_where_every_step_fails_it_makes_way_for_the_next_that_the_pinger_begins() -> None:
    """Each four minutes it begins one: those that went on for ever would come to be hundreds."""
    script = {"Advance": [NOT_YET, {"error": "Sandbox.Timedout"}], "Go on in another": [NOT_YET]}

    ended = asl.run(MACHINE, BATCH, script)

    assert ended["status"] == "FAILED"
    assert ended["error"]["Error"] == "StepsFail"
    assert "Sandbox.Timedout" in ended["error"]["Cause"]
    assert len(ended["calls"]) == 1 + 5


def test_a_later_execution_goes_on_under_the_first_ones_name() -> None:
    _, _, begun = run(NOT_YET, given={**BATCH, "series": "the-first", "number": 7})

    (next_one,) = begun
    assert next_one["Name"] == "the-first-8"
    assert next_one["Input"] == {**BATCH, "series": "the-first", "number": 8}


def test_the_batch_that_ends_at_the_last_step_needs_no_other_execution() -> None:
    _, steps, begun = run(*[NOT_YET] * (STEPS - 1), DONE)

    assert len(steps) == STEPS
    assert begun == []


def test_it_goes_on_itself_while_no_other_can_be_begun() -> None:
    _, steps, begun = run(*[NOT_YET] * (STEPS + 2), DONE, going_on={"error": "States.Timeout"})

    assert len(steps) == STEPS + 3
    assert len(begun) == 3


def test_another_that_has_been_begun_already_is_enough() -> None:
    there = {"error": "StepFunctions.ExecutionAlreadyExistsException"}
    _, steps, begun = run(NOT_YET, going_on=there)

    assert len(steps) == STEPS
    assert len(begun) == 1
