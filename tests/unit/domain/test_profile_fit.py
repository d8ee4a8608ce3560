"""Fits: made-up machines are found again through noise, and nothing absurd ever comes out."""

from __future__ import annotations

import dataclasses
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synapse.domain.model import ModelSpec
from synapse.domain.profile_fit import fit
from synapse.domain.profiling import Cell, Measurement, ProfilingError, plan_for
from tests.factories import NOW, a_chat_model, a_model, a_pool
from tests.unit.domain.machines import Machine

TEXT = replace(a_model("echo"), slots=64)
CHAT = replace(a_chat_model("smollm2"), slots=64, context_tokens=2048, max_output_tokens=1024)
POOL = a_pool("cpu", price_per_hour_usd=0.36)

MACHINES = st.builds(
    Machine,
    base_ms=st.floats(0.5, 500.0),
    prompt_ms=st.just(0.0) | st.floats(0.001, 2.0),
    company=st.just(0.0) | st.floats(0.01, 1.0),
    slots=st.just(0) | st.sampled_from([1, 2, 3, 4, 8, 16]),
    noise=st.floats(0.0, 0.05),
    strays=st.floats(0.0, 0.05),
)
WRITERS = st.builds(
    Machine,
    base_ms=st.floats(0.5, 200.0),
    prompt_ms=st.floats(0.01, 2.0),
    output_ms=st.floats(0.5, 50.0),
    company=st.floats(0.0, 0.5),
    first_company=st.floats(0.0, 1.0),
    noise=st.floats(0.0, 0.05),
    strays=st.floats(0.0, 0.05),
    generates=st.just(True),
)
TIMES = st.lists(st.floats(1e-3, 1e6), min_size=3, max_size=8).map(tuple)


@settings(max_examples=60, deadline=None)
@given(MACHINES, st.integers(0, 2**32))
def test_what_answers_at_once_is_found_again_through_noise(machine: Machine, seed: int) -> None:
    plan = plan_for(TEXT, POOL)
    done = machine.all_measured(plan, seed)
    profile = fit(TEXT, POOL, plan, done, NOW)

    for measured in done:
        cell = measured.cell
        true = machine.total_ms(cell.prompt_tokens, 0, cell.in_flight)
        found = profile.p50_ms(cell.prompt_tokens, 0, cell.in_flight)
        assert found == pytest.approx(true, rel=0.15)
    # Between the sizes that were measured, too.
    for tokens in (20, 300, 700):
        true = machine.total_ms(tokens, 0, 1)
        assert profile.p50_ms(tokens, 0, 1) == pytest.approx(true, rel=0.15)


@settings(max_examples=60, deadline=None)
@given(WRITERS, st.integers(0, 2**32))
def test_what_writes_is_found_again_through_noise(machine: Machine, seed: int) -> None:
    plan = plan_for(CHAT, POOL)
    done = machine.all_measured(plan, seed)
    profile = fit(CHAT, POOL, plan, done, NOW)

    for prompt in (16, 100, 400):
        true = machine.first_ms(prompt, 1)
        assert profile.first_p50_ms(prompt, 1) == pytest.approx(true, rel=0.15)
        for output in (8, 16, 50):
            true = machine.total_ms(prompt, output, 1)
            assert profile.p50_ms(prompt, output, 1) == pytest.approx(true, rel=0.15)
    # One number for the company of a whole that has two parts: right for the middle size.
    for n in sorted({each.cell.in_flight for each in done if each.cell in plan.crowds}):
        true = machine.total_ms(*sizes(plan.crowds[0]), n)
        assert profile.p50_ms(*sizes(plan.crowds[0]), n) == pytest.approx(true, rel=0.35)


def sizes(cell: Cell) -> tuple[int, int]:
    return cell.prompt_tokens, cell.output_tokens


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 7, 16, 32])
def test_independent_slots_are_counted(slots: int) -> None:
    plan = plan_for(TEXT, POOL)
    done = Machine(base_ms=50.0, slots=slots, noise=0.01).all_measured(plan)
    profile = fit(TEXT, POOL, plan, done, NOW)

    # One slot is the same as company that costs all of an item's time.
    is_found = profile.saturates_at == slots or (slots == 1 and profile.company > 0.98)
    assert is_found, profile
    assert profile.best_batch in (slots, 1 << (slots - 1).bit_length())
    assert profile.items_per_s == pytest.approx(slots / 0.050, rel=0.03)
    assert profile.usd_per_1k_items == pytest.approx(1000 * 0.0001 / profile.items_per_s)


def test_a_first_token_has_the_company_and_the_spread_that_first_tokens_had() -> None:
    machine = Machine(20.0, 0.5, 10.0, company=0.05, first_company=0.8, noise=0.02, generates=True)
    plan = plan_for(CHAT, POOL)
    profile = fit(CHAT, POOL, plan, machine.all_measured(plan), NOW)

    assert profile.first_company == pytest.approx(0.8, rel=0.1)
    assert profile.first_p50_ms(128, 8) == pytest.approx(machine.first_ms(128, 8), rel=0.1)
    assert profile.first_spread == pytest.approx(1.05, abs=0.03)
    assert profile.output_token_ms == pytest.approx(10.0, rel=0.05)


def test_the_spread_is_the_99th_percentile_over_the_median() -> None:
    times = tuple([10.0] * 97 + [30.0] * 3)
    plan = plan_for(TEXT, POOL)
    cells = (*plan.alone, *plan.large)
    done = [Measurement(cell, cell.prompt_tokens, 0, times) for cell in cells]

    assert fit(TEXT, POOL, plan, done, NOW).spread == pytest.approx(3.0)


def test_a_cell_that_was_disturbed_does_not_carry_the_fit_away() -> None:
    plan = plan_for(TEXT, POOL)
    done = Machine(base_ms=10.0, prompt_ms=0.01).all_measured(plan)
    at = next(at for at, each in enumerate(done) if each.cell == plan.crowds[1])
    done[at] = replace(done[at], total_ms=tuple(9 * ms for ms in done[at].total_ms))
    profile = fit(TEXT, POOL, plan, done, NOW)

    assert profile.base_ms == pytest.approx(10.0, rel=0.05)
    assert profile.prompt_token_ms == pytest.approx(0.01, rel=0.05)
    assert profile.company == pytest.approx(0.0, abs=0.01)


@settings(max_examples=100, deadline=None)
@given(st.lists(TIMES, min_size=1, max_size=11), st.sampled_from([TEXT, CHAT]), st.data())
def test_whatever_was_measured_a_profile_is_finite_and_never_negative(
    cells: list[tuple[float, ...]], spec: ModelSpec, data: st.DataObject
) -> None:
    plan = plan_for(spec, POOL)
    done = []
    for cell, times in zip((*plan.alone, *plan.crowds), cells, strict=False):
        share = data.draw(st.floats(0.01, 1.0))
        firsts = tuple(share * ms for ms in times) if spec is CHAT else ()
        tokens = (cell.prompt_tokens, cell.output_tokens)
        done.append(Measurement(cell, *tokens, total_ms=times, first_ms=firsts))
    profile = fit(spec, POOL, plan, done, NOW)

    for name, value in dataclasses.asdict(profile).items():
        if isinstance(value, int | float):
            assert math.isfinite(value), name
            assert value >= 0, name
    assert profile.spread >= 1
    assert profile.best_batch >= 1
    assert profile.first_spread is None or profile.first_spread >= 1


def test_without_an_item_alone_there_is_no_profile() -> None:
    plan = plan_for(TEXT, POOL)
    failed = Measurement(plan.alone[0], 0, 0, total_ms=(), failed=7)

    with pytest.raises(ProfilingError, match=r"no item alone was measured \(7 failed\)"):
        fit(TEXT, POOL, plan, [failed], NOW)


@pytest.mark.parametrize("spec", [TEXT, CHAT])
def test_company_that_nobody_measured_is_taken_to_cost_all_of_an_item(spec: ModelSpec) -> None:
    plan = plan_for(spec, POOL)
    machine = Machine(10.0, 0.1, 5.0, generates=spec is CHAT)
    done = [machine.measured(cell, random.Random(1)) for cell in plan.alone]
    profile = fit(spec, POOL, plan, done, NOW)

    assert profile.company == 1.0
    assert profile.first_company in (None, 1.0)
    assert profile.best_batch == 1


def test_who_was_disturbed_says_so() -> None:
    plan = plan_for(TEXT, POOL)
    cells = (*plan.alone, *plan.large)
    done = [Machine(10.0).measured(cell, random.Random(1)) for cell in cells]

    assert fit(TEXT, POOL, plan, done, NOW).was_idle
    assert not fit(TEXT, POOL, plan, [*done[:2], replace(done[2], was_idle=False)], NOW).was_idle
