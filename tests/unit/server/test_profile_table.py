"""What `synapse profile` prints in the end."""

from __future__ import annotations

from typing import Any

from synapse.application.profile import Report, Target
from synapse.domain.model import Task
from synapse.domain.profile import Profile
from synapse_server.profiling import table
from tests.factories import a_model, a_pool


def report(task: Task, base_ms: float, **measured: Any) -> Report:
    spec, pool = a_model("m", task=task), a_pool("cpu")
    return Report(Target(spec, pool, None), Profile("m", "1", "cpu", "cpu", base_ms, **measured))


def cells(told: str) -> dict[str, str]:
    head, row = (line.split("  ") for line in told.splitlines())
    names, values = ([cell.strip() for cell in line if cell.strip()] for line in (head, row))
    return dict(zip(names, values, strict=True))


def test_it_says_how_many_slots_keep_the_promises_when_all_are_taken() -> None:
    found = cells(table([report(Task.EMBED, 20.0, company=1.0)]))

    assert (found["gold slots"], found["silver slots"]) == ("2", "7")


def test_slots_that_do_not_hold_each_other_up_may_be_as_many_as_one_likes() -> None:
    found = cells(table([report(Task.TEXT, 70.0, company=0.0)]))

    assert (found["gold slots"], found["silver slots"]) == ("0", "≥ 256")


def test_of_generations_it_is_the_first_token_that_counts() -> None:
    generates = {"output_token_ms": 9.0, "prompt_token_ms": 0.1, "first_company": 0.5}
    found = cells(table([report(Task.GENERATE, 10.0, **generates)]))

    assert (found["gold slots"], found["silver slots"]) == ("3", "12")
