"""The profiler's events: a profile made step by step, all of it through JSON."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from synapse.adapters.profile_events import (
    MAX_TIMES,
    TargetOrder,
    measured_to_event,
    plan_from_event,
    plan_to_event,
    profile_to_event,
    step_of,
    target_from_event,
)
from synapse.domain.profile_fit import fit
from synapse.domain.profiling import Measurement, next_cell, plan_for
from tests.factories import NOW, a_chat_model, a_model, a_pool
from tests.unit.domain.machines import Machine

SPEC = replace(a_chat_model("smollm2"), slots=16)
POOL = a_pool("gpu", runner="arn:gpu")


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(value, allow_nan=False))


def an_order(**changes: Any) -> dict[str, Any]:
    base = {"model": "smollm2", "version": "1", "pool": "gpu", "budgetSeconds": 60}
    return {**base, "measurements": [], **changes}


def test_a_plan_is_by_pool_with_the_function_that_measures_there() -> None:
    other = a_pool("cpu", runner="arn:cpu")
    found = plan_to_event([(SPEC, POOL), (SPEC, other), (a_model("echo"), POOL)], 30.0)

    assert [(each["pool"], each["runnerArn"]) for each in found["pools"]] == [
        ("gpu", "arn:gpu"),
        ("cpu", "arn:cpu"),
    ]
    assert [each["model"] for each in found["pools"][0]["models"]] == ["smollm2", "echo"]
    assert found["pools"][1]["budgetSeconds"] == 30.0


def test_measurements_travel_from_step_to_step_and_tell_the_same() -> None:
    machine = Machine(20.0, 0.5, 10.0, company=0.1, first_company=0.5, generates=True)
    plan, order = plan_for(SPEC, POOL), target_from_event(an_order())
    direct = machine.all_measured(plan)
    for measured in direct:
        event = through_json(measured_to_event(order.done, measured))
        assert event["done"] is False
        order = target_from_event(an_order(measurements=event["measurements"]))
    last = through_json(measured_to_event(order.done, None))

    assert last["done"] is True
    assert next_cell(plan, order.done) is None
    found, true = (fit(SPEC, POOL, plan, done, NOW) for done in (order.done, direct))
    assert found.base_ms == pytest.approx(true.base_ms, rel=0.01)
    assert found.company == pytest.approx(true.company, rel=0.05)
    assert through_json(profile_to_event(found))["best_batch"] == true.best_batch


def test_long_measurements_are_thinned_so_that_the_state_holds_them() -> None:
    plan = plan_for(SPEC, POOL)
    times = tuple(float(number) for number in range(2000))
    done = [
        Measurement(cell, 1, 1, times, first_ms=times)
        for cell in (*plan.alone, *plan.crowds, *plan.extremes(4))
    ]
    event = measured_to_event(done, None)

    kept = [len(each["total_ms"]) for each in event["measurements"]]
    assert all(MAX_TIMES / 2 < count <= MAX_TIMES for count in kept)
    assert [len(each["first_ms"]) for each in event["measurements"]] == kept
    assert len(json.dumps(event)) < 64 * 1024


def test_an_order_that_is_not_the_profilers_has_no_step() -> None:
    assert step_of({"batchId": "b"}) == ""
    assert target_from_event(an_order()) == TargetOrder("smollm2", "1", "gpu", 60.0, ())


@pytest.mark.parametrize(
    "wish",
    [
        {"model": 7},
        {"pool": None},
        {"force": "yes"},
        {"budgetSeconds": 0},
        {"budgetSeconds": True},
        {"budgetSeconds": math.nan},
        {"colour": "blue"},
        ["echo"],
    ],
)
def test_a_wish_of_the_wrong_kind_is_refused(wish: object) -> None:
    with pytest.raises(ValueError, match="expected"):
        plan_from_event({"step": "plan", "wish": wish}, 60.0)


def test_a_wish_may_be_for_everything() -> None:
    found = plan_from_event({"step": "plan"}, 60.0)

    assert (found.model, found.pool, found.force, found.budget_s) == ("", "", False, 60.0)
