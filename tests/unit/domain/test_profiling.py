"""The plan of measurements: what is measured, in which order, how long, and when it is enough."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.model import Task
from synapse.domain.profiling import (
    STABLE_SAMPLES,
    Cell,
    Measurement,
    best_batch,
    is_stable,
    limit_s,
    next_cell,
    plan_for,
)
from tests.factories import a_chat_model, a_model, a_pool
from tests.unit.domain.machines import Machine

TEXT = replace(a_model("echo"), slots=64)
POOL = a_pool()


def cells_of(machine: Machine) -> list[Cell]:
    return [each.cell for each in machine.all_measured(plan_for(TEXT, POOL))]


def test_items_alone_come_first_then_company_and_what_takes_longest_last() -> None:
    cells = cells_of(Machine(base_ms=10.0, slots=4))

    assert [cell.in_flight for cell in cells] == [1, 1, 2, 4, 8, 16, 1, 4]
    assert [cell.prompt_tokens for cell in cells] == [64, 8, 64, 64, 64, 64, 1024, 1024]


def test_what_writes_is_measured_by_both_lengths() -> None:
    plan = plan_for(a_chat_model("smollm2", context_tokens=2048, max_output_tokens=512), POOL)

    assert [(cell.prompt_tokens, cell.output_tokens) for cell in plan.alone] == [
        (96, 16),
        (16, 16),
        (96, 4),
    ]
    assert plan.large == (Cell(96, 64, 1), Cell(384, 16, 1))
    assert plan.extremes(8) == (Cell(96, 64, 8), Cell(384, 16, 8))


def test_no_larger_company_is_tried_once_throughput_grows_no_more() -> None:
    assert max(cell.in_flight for cell in cells_of(Machine(base_ms=10.0, company=1.0))) == 4
    assert max(cell.in_flight for cell in cells_of(Machine(base_ms=10.0, slots=64))) == 64


def test_company_in_which_items_fail_is_the_last_that_is_tried() -> None:
    plan, machine, chance = plan_for(TEXT, POOL), Machine(10.0, slots=64), random.Random(1)
    done = [machine.measured(cell, chance) for cell in (*plan.alone, plan.crowds[0])]
    done.append(replace(machine.measured(plan.crowds[1], chance), failed=1))

    cell = next_cell(plan, done)
    assert cell is not None
    assert cell.prompt_tokens == 1024


def test_once_the_budget_is_spent_only_items_alone_are_measured() -> None:
    plan, machine, chance = plan_for(TEXT, POOL), Machine(10.0), random.Random(1)
    done = list[Measurement]()
    while (cell := next_cell(plan, done, budget_s=2.0)) is not None:
        done.append(machine.measured(cell, chance))

    assert [each.cell for each in done] == list(plan.alone)


def test_no_cell_is_measured_twice_though_it_brought_nothing() -> None:
    plan, done = plan_for(TEXT, POOL), list[Measurement]()
    while (cell := next_cell(plan, done)) is not None:
        assert len(done) < 50
        done.append(Measurement(cell, 0, 0, total_ms=(), failed=1))

    assert len({each.cell for each in done}) == len(done)


def test_a_pool_may_have_slots_of_its_own() -> None:
    assert plan_for(TEXT, a_pool(slots={"echo": 5})).in_flight == (1, 2, 4, 5)


@given(
    st.sampled_from(Task), st.integers(1, 4096), st.integers(2, 200_000), st.integers(1, 200_000)
)
def test_every_size_fits_the_models_context_and_its_slots(
    task: Task, slots: int, context: int, output: int
) -> None:
    spec = replace(
        a_chat_model("any"),
        task=task,
        slots=slots,
        context_tokens=context,
        max_output_tokens=0 if task is Task.EMBED else min(output, context),
    )
    plan = plan_for(spec, POOL)

    for cell in (*plan.alone, *plan.crowds, *plan.extremes(1)):
        assert cell.prompt_tokens >= 1
        assert cell.output_tokens <= spec.max_output_tokens
        assert cell.prompt_tokens + cell.output_tokens <= context + 1
        assert 1 <= cell.in_flight <= min(slots, 256)
    assert plan.in_flight[-1] == min(slots, 256)


def test_the_best_batch_is_the_smallest_that_has_nearly_the_best_throughput() -> None:
    plan = plan_for(TEXT, POOL)
    done = Machine(base_ms=10.0, company=0.02, slots=8).all_measured(plan)

    assert best_batch(plan, done) == 8


def test_what_early_cells_leave_of_the_budget_is_shared_by_the_later() -> None:
    plan = plan_for(TEXT, POOL)
    first = limit_s(plan, [], 20.0)
    done = [Machine(1.0).measured(cell, random.Random(1)) for cell in plan.alone]
    quick = [replace(each, took_s=0.1) for each in done]
    slow = [replace(each, took_s=10.0) for each in done]

    assert first == pytest.approx(20.0 / 10)
    assert limit_s(plan, quick, 20.0) == pytest.approx(19.8 / 8)
    assert limit_s(plan, slow, 20.0) == 0.0


def test_a_median_is_stable_once_its_interval_is_narrow() -> None:
    chance = random.Random(1)
    steady = [chance.gauss(10.0, 0.2) for _ in range(STABLE_SAMPLES)]
    wild = [chance.uniform(1.0, 19.0) for _ in range(40)]

    assert not is_stable(steady[:-1])
    assert is_stable(steady)
    assert not is_stable(wild)
    assert is_stable([*steady * 3, 500.0])
