"""Rates and traces: what comes, what it costs by service, and that formulas say the same."""

from __future__ import annotations

import statistics
from dataclasses import replace

import pytest

from bench.simulator import facts, round_bill, tables
from bench.simulator.mixed_day import CALLER_S, DAY_S, END_S, Design, Load, Setting, run, traffics
from bench.simulator.sweep import FROM_ZERO, NAIVE, TIERS, Full, designs, load_of, sweep
from bench.simulator.traces import TRACES, bursty, rivals
from bench.simulator.workload import mixed, sessions
from synapse.domain import cost
from synapse.domain.from_zero import cycle, opening
from synapse.domain.job import SlaTier
from synapse.domain.reference import LAMBDA_GB, PAYLOADS, TIMES


def test_every_design_of_the_sweep_serves_the_same_requests_and_its_bill_adds_up(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = list(sweep("rerank", [0.02], seed=3))

    assert [report.name for _, report in found] == [each.name for each in designs()]
    assert len({report.requests for _, report in found}) == 1
    tables.sweep_head()
    for per_s, report in found:
        assert sum(report.usd.values()) == pytest.approx(report.machines_usd + report.services.usd)
        tables.sweep_row(per_s, report)
        tables.parts_row(report)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + 2 * len(found)


def test_a_function_costs_in_the_simulation_what_the_formula_says() -> None:
    [naive] = [design for design in designs() if design.name == NAIVE]

    report = run(naive, load_of("rerank", 0.3), seed=3)

    # Every run is billed, and a start for each that was cold: 9 s on the average.
    work_s, gb = TIMES["rerank"]["cpu"].p50_s, LAMBDA_GB["rerank"]
    runs = cost.lambda_run(work_s, gb).times(report.requests)
    assert runs.usd < report.services.usd < 1.2 * runs.usd


def test_a_worker_comes_and_goes_in_the_simulation_as_the_formula_says() -> None:
    """Where a minute passes between two rounds, and gaps are longer than exponential ones."""
    [ours] = [design for design in designs() if design.name == FROM_ZERO]

    report = run(replace(ours, pools=("cpu",)), load_of("embed", 0.004), seed=3)

    busy_s = 0.75 * DAY_S
    expected = cycle(0.004 / 0.75, 300.0, 40.0)
    up = report.pools["cpu"].paid_s / END_S
    assert up == pytest.approx(expected.up * busy_s / END_S, rel=0.25)


def test_in_the_morning_callers_wait_in_the_simulation_as_the_formula_says() -> None:
    """An hour of silver from zero: who comes during the start is held until it is done."""
    load = Load(0.5, sessions(DAY_S, (0.0, 3600.0)), (), (("rerank", SlaTier.SILVER, 1.0),))
    ours = Design("ours", ("neuron",), Setting.ours)

    report = run(ours, load, seed=2)

    start_s, calls = report.pools["neuron"].starting_s, cost.call().times(report.requests)
    of_held = report.services.functions - calls.functions - cost.housekeeping(END_S).functions
    work_s = TIMES["rerank"]["neuron"].p50_s
    answered_s = report.requests * work_s
    morning = opening(report.requests / 3600, start_s, work_s, 1)
    held_s = of_held / cost.held(1.0).functions
    assert held_s == pytest.approx(morning.held_s + answered_s, rel=0.2)
    # The hour, and the idle time after it.
    assert report.pools["neuron"].paid_s == pytest.approx(3600 + 300, rel=0.03)


def test_who_is_held_in_vain_is_billed_for_all_the_time_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    never = dict.fromkeys(facts.START, facts.Delay(9000.0, 9001.0, "no worker comes in time"))
    monkeypatch.setattr(facts, "START", never)
    load = Load(0.005, sessions(DAY_S, (0.0, 3600.0)), (), (("rerank", SlaTier.SILVER, 1.0),))

    report = run(Design("ours", ("neuron",), Setting.ours), load, seed=2)

    number = report.requests
    assert report.tiers[SlaTier.SILVER].expired == number > 20
    calls, house = cost.call().times(number), cost.housekeeping(END_S)
    of_held = report.services.functions - calls.functions - house.functions
    assert of_held == pytest.approx(cost.held(CALLER_S).functions * number, rel=0.01)


def test_jobs_are_billed_with_their_payloads_their_results_and_their_runners() -> None:
    load = Load(0.05, shares=(("rerank-64", SlaTier.BRONZE, 1.0),))
    ours = Design("ours", ("neuron",), Setting.ours, warm="neuron")

    report = run(ours, load, seed=2)

    house, jobs = cost.housekeeping(END_S), report.requests
    assert report.services.gateway == pytest.approx(2 * jobs * 3.5e-6)
    # Hardly two come at once: each has a batch, whose runner waits for the item.
    payload, runner = PAYLOADS["rerank-64"], cost.batch(TIMES["rerank-64"]["neuron"].p50_s)
    # All that the dispatcher has read is old when the next one comes.
    look = round_bill.invocation(1, again=0, reads=6)
    each = cost.job(payload) + cost.fetched(payload) + runner + look
    tables = report.services.tables - house.tables
    assert tables == pytest.approx(each.tables * jobs, rel=0.05)
    functions = report.services.functions - house.functions
    assert functions == pytest.approx(each.functions * jobs, rel=0.05)
    assert report.services.bucket == pytest.approx(jobs * 5.4e-6)
    assert report.services.monitoring == house.monitoring > 0


def test_a_long_prompt_is_on_its_way_through_the_bucket() -> None:
    """A put and a get, of 100 ms at the median each."""
    ours = Design("ours", ("neuron",), Setting.ours, warm="neuron")

    def took_ms(model: str) -> float:
        jobs = run(ours, Load(0.02, shares=((model, SlaTier.BRONZE, 1.0),)), seed=2)
        return jobs.tiers[SlaTier.BRONZE].p50_ms - 1000 * TIMES[model]["neuron"].p50_s

    assert took_ms("rerank") - took_ms("embed") == pytest.approx(200, abs=40)


def test_what_comes_in_a_sweep_is_of_all_tiers() -> None:
    asked = mixed(traffics(load_of("embed", 1.0)), DAY_S, seed=2)

    for tier, share in TIERS:
        part = sum(each.tier is tier for each in asked) / len(asked)
        assert part == pytest.approx(share, abs=0.02)
    assert len(asked) / DAY_S == pytest.approx(1.0, rel=0.05)


def test_where_there_is_work_all_the_time_one_machine_is_kept_for_it() -> None:
    report = Full(0.1, 0.2).run(seed=2)

    assert report.name == "0.1 silver and 0.2 bronze a second"
    assert report.requests == pytest.approx(0.3 * DAY_S, rel=0.1)
    assert all(tier.delivered == tier.requests for tier in report.tiers.values())
    assert report.pools["gpu"].most == 1
    assert report.kept > 0.98


@pytest.mark.parametrize("name", TRACES)
def test_a_trace_has_the_rate_that_was_published(name: str) -> None:
    trace = TRACES[name]
    rates = [trace.rate(float(at)) for at in range(int(DAY_S))]

    assert statistics.mean(rates) == pytest.approx(1.0, rel=0.02)
    assert sum(each.per_s for each in traffics(trace.load())) == pytest.approx(trace.per_s)


def test_the_bursty_trace_has_its_peak_and_minutes_with_hardly_anybody() -> None:
    rate = bursty(DAY_S, peak=3.8)

    minutes = [rate(60.0 * minute) for minute in range(120)]

    assert max(minutes) == pytest.approx(3.8)
    assert min(minutes) < 0.05
    assert len({rate(60.0 + second) for second in range(60)}) == 1


def test_every_rival_on_a_trace_has_a_name_of_its_own() -> None:
    names = [design.name for design in rivals()]

    assert len(names) == len(set(names))
