"""What a month of traffic costs, by design."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synapse.domain import cost
from synapse.domain.day import Traffic, wave
from synapse.domain.job import SlaTier
from synapse.domain.monthly import (
    DAYS,
    HOURS,
    Month,
    always_on,
    months,
    naive,
    provisioned,
    synapse,
    synapse_on_lambda,
)
from synapse.domain.price_list import ECS_FEE, USD_HOUR
from synapse.domain.priced_model import Model, published, timed

RERANK = published("rerank")


@given(st.floats(1, 1e7), st.floats(1, 20), st.floats(1, 24))
def test_as_many_requests_come_in_a_day_as_were_said(
    per_day: float, peak: float, hours: float
) -> None:
    rates = Traffic(per_day, peak=peak, busy_hours=hours).rates()

    assert sum(rates) * 900 == pytest.approx(per_day)
    assert min(rates) >= 0
    assert sum(rate > 0 for rate in rates) <= max(1, round(hours * 4))


@given(st.integers(24, 96), st.floats(1.0, 6.0))
def test_the_busiest_time_is_so_many_times_the_mean(steps: int, peak: float) -> None:
    shape = wave(steps, peak)

    assert max(shape) == pytest.approx(peak, rel=1e-3)
    assert sum(shape) / steps == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"per_day": 0}, "requests a day"),
        ({"per_day": float("inf")}, "requests a day"),
        ({"peak": 0.5}, "peak"),
        ({"busy_hours": 25}, "busy hours"),
        ({"busy_hours": 0}, "busy hours"),
    ],
)
def test_traffic_that_cannot_be_is_refused(fields: dict[str, float], why: str) -> None:
    asked = {"per_day": 1000.0, "peak": 2.0, "busy_hours": 24.0, **fields}

    with pytest.raises(ValueError, match=why):
        Traffic(asked["per_day"], peak=asked["peak"], busy_hours=asked["busy_hours"])


def test_a_busy_machine_is_paid_all_month_and_a_silent_day_not_at_all() -> None:
    always, half = (synapse(RERANK, Traffic(1e5, peak=1.0, busy_hours=hours)) for hours in (24, 12))

    assert always.hours.paid == pytest.approx(HOURS, rel=1e-3)
    assert sum(always.machines.values()) == pytest.approx(
        HOURS * USD_HOUR["inf2.xlarge"] * ECS_FEE, rel=1e-3
    )
    # And five minutes of each evening.
    assert half.hours.paid == pytest.approx(HOURS / 2 + DAYS / 12, rel=1e-2)
    assert always.hours.working == pytest.approx(1e5 / 24 * HOURS * 0.01746 / 3600, rel=1e-3)


def test_at_low_rates_the_worker_is_away_and_callers_wait_for_it() -> None:
    month = synapse(RERANK, Traffic(50.0))

    assert month.hours.paid < 0.4 * HOURS
    assert month.cold > 0.5
    assert month.machines["starting"] > 0


def test_the_pool_is_the_cheapest_that_keeps_the_tier() -> None:
    embed, rerank = (
        synapse(published(name), Traffic(1e5, SlaTier.GOLD)).design for name in ("embed", "rerank")
    )
    # A GPU takes 107 ms, a processor 11 s: who is in no hurry is served where it is cheapest.
    long = published("rerank-64")
    silver, bronze = (synapse(long, Traffic(1e5, tier)) for tier in list(SlaTier)[1:])

    assert (embed, rerank) == ("Synapse, gpu", "Synapse, neuron")
    assert silver.design == bronze.design == "Synapse, neuron"
    assert bronze.services.queues > 0 == silver.services.queues


def test_a_promise_that_bears_little_company_has_more_machines() -> None:
    gold, bronze = (
        synapse(RERANK, Traffic(3e6, tier, peak=1.0)).hours.paid / HOURS
        for tier in (SlaTier.GOLD, SlaTier.BRONZE)
    )

    assert bronze == pytest.approx(1.0)
    assert gold == pytest.approx(2.0)


def test_a_function_costs_by_the_second_and_starts_are_billed() -> None:
    month = naive(RERANK, Traffic(1e5, peak=1.0))
    rare = naive(RERANK, Traffic(1.0, peak=1.0))

    assert month is not None
    assert rare is not None
    number = 1e5 * HOURS / 24
    assert month.services.functions == pytest.approx(
        number * (2.74 * 10 * 0.0000133334 + 0.2e-6), rel=1e-3
    )
    assert rare.cold > 0.99
    each = rare.services.functions / (HOURS / 24)
    assert each == pytest.approx((2.74 + 8.0) * 10 * 0.0000133334, rel=1e-2)


def test_provisioned_environments_are_paid_all_month() -> None:
    month = provisioned(RERANK, Traffic(10.0, peak=1.0))

    assert month is not None
    assert month.design == "provisioned Lambda × 1"
    assert month.services.functions == pytest.approx(HOURS * 3600 * 10 * 0.0000033334, rel=1e-2)


def test_machines_that_are_always_on_are_enough_for_the_peak() -> None:
    month = always_on(timed("mine", {"gpu": 0.0251}, {}), Traffic(1e6, peak=3.0))

    # 34.7 a second at the most, of 25.1 ms.
    assert month.hours.paid == pytest.approx(2 * HOURS)
    assert month.usd == pytest.approx(2 * HOURS * USD_HOUR["g6.xlarge"])


def test_machines_that_are_always_on_are_of_the_cheapest_kind_that_keeps_the_promise() -> None:
    item_s = {"gpu": 0.03, "neuron": 0.12, "cpu": 0.9}

    gold, silver, bronze = (
        always_on(timed("mine", item_s, {}), Traffic(1000.0, tier)).design for tier in SlaTier
    )

    assert gold == "always-on gpu × 1"
    assert silver == "always-on neuron × 1"
    assert bronze == "always-on cpu × 1"


def test_more_than_all_pools_can_do_is_refused() -> None:
    with pytest.raises(ValueError, match=r"more workers than there may be: .* 2 are allowed"):
        synapse(published("rerank", most=2), Traffic(1e9))


def test_what_is_not_known_is_left_out() -> None:
    only_gpu = timed("mine", {"gpu": 0.04}, {})

    assert naive(only_gpu, Traffic(10.0)) is None
    assert provisioned(only_gpu, Traffic(10.0)) is None
    assert synapse_on_lambda(only_gpu, Traffic(10.0)) is None
    assert [month.design for month in months(only_gpu, Traffic(10.0))] == [
        "Synapse, gpu",
        "always-on gpu × 1",
    ]


def test_a_machine_pays_above_some_rate_and_a_function_below_it() -> None:
    few, many = (months(RERANK, Traffic(number, peak=3.0)) for number in (1000.0, 1e6))

    def usd(found: list[Month], name: str) -> float:
        return next(month.usd for month in found if month.design.startswith(name))

    assert usd(few, "naive") < usd(few, "Synapse, neuron")
    assert usd(many, "Synapse, neuron") < 0.1 * usd(many, "naive")


@pytest.mark.parametrize("design", [synapse, naive, provisioned, always_on])
@settings(max_examples=30, deadline=None)
@given(st.floats(1, 1e6), st.floats(1, 10))
def test_more_requests_never_cost_less(
    design: Callable[[Model, Traffic], Month | None], per_day: float, times: float
) -> None:
    less, more = (design(RERANK, Traffic(number)) for number in (per_day, per_day * times))

    assert less is not None
    assert more is not None
    assert more.usd >= less.usd * (1 - 1e-6)


def test_a_model_that_nobody_measured_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match="known are embed, rerank, rerank-64"):
        published("gpt")
    with pytest.raises(ValueError, match="no accelerator 'tpu'"):
        timed("mine", {"tpu": 1.0}, {})
    with pytest.raises(ValueError, match="more than 0 ms on gpu"):
        timed("mine", {"gpu": 0.0}, {})
    with pytest.raises(ValueError, match="no pool of model 'rerank' may have a worker"):
        synapse(published("rerank", most=0), Traffic(10.0))


@pytest.mark.parametrize("per_s", [1.0, 10.0])
def test_each_morning_somebody_waits_for_the_start(per_s: float) -> None:
    """An hour a day: four minutes of it nobody is answered, all are held in functions."""
    month = synapse(RERANK, Traffic(per_s * 3600, peak=1.0, busy_hours=1.0))

    assert month.cold == pytest.approx(240 / 3600, rel=0.01)
    assert month.hours.starting == pytest.approx(DAYS * 240 / 3600)
    # An hour, and the idle time after it.
    assert month.hours.paid == pytest.approx(DAYS * (3600 + 300) / 3600, rel=0.01)
    waits_for_start = cost.held(per_s * 240**2 / 2).times(DAYS).functions
    assert waits_for_start < month.services.functions < 1.4 * waits_for_start + 1.0


def test_a_day_without_silence_has_no_morning() -> None:
    month = synapse(RERANK, Traffic(36_000.0 * 24, peak=1.0))

    assert month.cold == pytest.approx(0.0, abs=1e-9)
    assert month.hours.paid == pytest.approx(HOURS)


def test_our_pool_of_functions_runs_jobs_alone() -> None:
    silver, bronze = (
        synapse_on_lambda(RERANK, Traffic(1000.0, tier)) for tier in list(SlaTier)[1:]
    )

    assert silver is None
    assert bronze is not None
    # It is its own runner: no second function waits meanwhile.
    plain = naive(RERANK, Traffic(1000.0, SlaTier.BRONZE))
    assert plain is not None
    assert bronze.services.functions == pytest.approx(plain.services.functions, rel=0.05)


def test_machines_that_the_template_has_no_pool_of_are_not_ours() -> None:
    only_cpu = timed("mine", {"cpu": 0.02}, {})

    assert not only_cpu.sites
    assert [month.design for month in months(only_cpu, Traffic(10.0))] == [
        "naive Lambda",
        "provisioned Lambda × 1",
        "always-on cpu × 1",
    ]


def test_long_jobs_pay_for_the_functions_that_wait_for_them() -> None:
    traffic = Traffic(50_000.0, SlaTier.BRONZE)

    month = synapse(timed("slow", {"gpu": 30.0}, {}, most=50), traffic)

    assert month.services.functions == pytest.approx(760 * 0.8, rel=0.03)


def test_waiting_for_results_costs_more_than_fetching_them_later() -> None:
    traffic = Traffic(1000.0, SlaTier.BRONZE, busy_hours=8)

    later, waits = (synapse(replace(RERANK, waits=waits), traffic) for waits in (False, True))

    assert waits.services.functions > later.services.functions
    assert (
        waits.services.gateway >= later.services.gateway == pytest.approx(2 * 1000 * DAYS * 3.5e-6)
    )
