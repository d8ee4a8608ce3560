"""The batcher, run: a batch goes from pool to pool, and comes back where none could run it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.infra import asl

MACHINE = asl.machine("batcher")
BATCH = {
    "batchId": "batch-1",
    "model": "echo",
    "version": "1",
    "sla": "bronze",
    "fallback": "",
    "jobIds": ["job-1"],
    "pools": [
        {"name": "cpu", "runnerArn": "arn:cpu"},
        {"name": "primary", "runnerArn": "arn:run"},
    ],
}
RAN: dict[str, Any] = {"payload": {}}

pytestmark = asl.needs_node


def run(*answers: dict[str, Any]) -> tuple[Any, list[str]]:
    """What became of the batch, and which functions were called."""
    script = {"Run on pool": list(answers), "Give batch back": [RAN]}
    ended = asl.run(MACHINE, {"batches": [BATCH]}, script)
    assert ended["status"] == "SUCCEEDED"
    return ended["output"][0]["outcome"], [call["function"] for call in ended["calls"]]


def test_a_batch_that_ran_asks_no_other_pool() -> None:
    assert run(RAN) == ("ran", ["arn:cpu"])


@pytest.mark.parametrize(("told", "items"), [({"items": [8]}, [8]), ({}, [])])
def test_a_runner_is_told_of_each_jobs_items(told: dict[str, Any], items: list[int]) -> None:
    """Of none by a dispatcher of the version before, while a new one is deployed."""
    ended = asl.run(MACHINE, {"batches": [{**BATCH, **told}]}, {"Run on pool": [RAN]})

    assert [call["payload"]["items"] for call in ended["calls"]] == [items]


@pytest.mark.parametrize("error", ["EngineUnavailable", "Lambda.TooManyRequestsException"])
def test_a_pool_that_took_nothing_is_followed_by_the_next(error: str) -> None:
    """So also a function whose engine has ended, or does not come up."""
    assert run({"error": error}, RAN) == ("ran", ["arn:cpu", "arn:run"])


@pytest.mark.parametrize(
    "error", ["EngineFull", "EngineLost", "Runtime.ExitError", "States.Timeout"]
)
def test_what_was_lost_on_the_way_or_is_not_to_wait_goes_back_to_its_queue(error: str) -> None:
    assert run({"error": error}, RAN) == ("given back", ["arn:cpu", "${GiveBackArn}"])


def test_what_no_pool_took_goes_back_to_its_queue() -> None:
    outcome, called = run({"error": "EngineUnavailable"})

    assert (outcome, called) == ("given back", ["arn:cpu", "arn:run", "${GiveBackArn}"])
