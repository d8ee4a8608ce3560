"""What services bill, and for how long a worker is paid that comes and goes."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain import cost
from synapse.domain.cost import Bill, MachineHours, cycle

rates = st.floats(1e-6, 100.0)
spans = st.floats(0.0, 1000.0)


def test_a_million_calls_cost_what_the_price_lists_say() -> None:
    million = cost.call().times(1e6)

    assert million.gateway == pytest.approx(3.50)
    assert million.tables == pytest.approx(2 * 0.625 + 0.125)
    # 20 ms of a function of 1 GB, and the request.
    assert million.functions == pytest.approx(0.20 + 1e6 * 0.02 * 0.0000166667)
    assert million.usd == pytest.approx(million.gateway + million.tables + million.functions)


def test_a_caller_who_waits_costs_a_function_and_a_job_a_queue() -> None:
    assert cost.held(3600.0).functions == pytest.approx(0.06, rel=1e-5)
    assert cost.call().queues == cost.held(10.0).queues == 0
    assert cost.job().queues == pytest.approx(3 * 0.40e-6)
    assert cost.batch().batcher > 1e-6


def test_an_environment_that_is_provisioned_is_paid_idle_and_less_when_it_runs() -> None:
    idle, run = cost.provisioned(1, 3600.0, 1.0), cost.provisioned_run(3600.0, 1.0)
    plain = cost.lambda_run(3600.0, 1.0)

    assert idle.functions == pytest.approx(0.015, rel=1e-3)
    assert plain.functions == pytest.approx(0.06, rel=1e-3)
    # Full of work, it is cheaper by a sixth.
    assert idle.functions + run.functions == pytest.approx(plain.functions * 5 / 6, rel=1e-2)


def test_bills_add_up_by_service() -> None:
    bills = [cost.call(), cost.job(), cost.batch(), cost.housekeeping(60.0)]

    assert sum(bills, Bill()).usd == pytest.approx(sum(bill.usd for bill in bills))
    assert cost.job().times(3).queues == pytest.approx(3 * cost.job().queues)


@pytest.mark.parametrize(("per_s", "idle_s", "start_s"), [(0.002, 300, 240), (0.01, 120, 40)])
def test_a_worker_is_up_and_missed_as_often_as_the_formula_says(
    per_s: float, idle_s: float, start_s: float
) -> None:
    chance, now, up_s, starting_s = random.Random(1), 0.0, 0.0, 0.0
    ready_at = gone_at = -math.inf
    requests, cold = 60_000, 0
    for _ in range(requests):
        now += chance.expovariate(per_s)
        if now >= gone_at:
            # It was let go, or never there.
            ready_at = now + start_s
            starting_s += start_s
            up_s += start_s + idle_s
            gone_at = ready_at + idle_s
            cold += 1
            continue
        cold += now < ready_at
        longer_s = max(now, ready_at) + idle_s - gone_at
        up_s += longer_s
        gone_at += longer_s

    found = cycle(per_s, idle_s, start_s)

    assert found.up == pytest.approx(up_s / now, rel=0.02)
    assert found.cold == pytest.approx(cold / requests, rel=0.03)
    assert found.starting == pytest.approx(starting_s / now, rel=0.03)


@given(rates, spans, spans)
def test_shares_of_time_and_of_requests_are_shares(
    per_s: float, idle_s: float, start_s: float
) -> None:
    found = cycle(per_s, idle_s, start_s)

    assert 0 <= found.starting <= found.up <= 1
    assert 0 <= found.cold <= 1


@given(rates, spans, spans, st.floats(1.0, 10.0))
def test_who_waits_longer_before_letting_go_pays_more_and_misses_fewer(
    per_s: float, idle_s: float, start_s: float, times: float
) -> None:
    short, long = cycle(per_s, idle_s, start_s), cycle(per_s, idle_s * times, start_s)

    assert long.up >= short.up - 1e-9
    assert long.cold <= short.cold + 1e-9


def test_nobody_asks_nobody_pays() -> None:
    assert cycle(0.0, 300.0, 240.0) == cost.Cycle(0.0, 0.0, 0.0)
    assert cycle(1000.0, 300.0, 240.0).up == pytest.approx(1.0)
    assert MachineHours().use == 0.0


def test_machine_hours_are_paid_whatever_they_were_spent_on() -> None:
    hours = MachineHours(1.0, 0.5, 2.5) + MachineHours(1.0).times(2)

    assert hours.paid == pytest.approx(6.0)
    assert hours.use == pytest.approx(3 / 5.5)
    assert sum(hours.usd(0.8).values()) == pytest.approx(4.8)
