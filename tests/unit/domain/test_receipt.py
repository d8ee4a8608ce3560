"""What a request cost: shares of slots, of idle time, and what is reserved before it runs."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.job import SlaTier, Usage
from synapse.domain.profile import Profile
from synapse.domain.receipt import (
    MAX_IDLE_S,
    SPREAD_OVER_S,
    Cost,
    IdleTime,
    Receipt,
    cold_ms,
    combined,
    estimated_usd,
    usd,
    work_s,
)
from synapse.domain.routing import Need, PoolView
from tests.factories import a_pool

NEED = Need(SlaTier.SILVER, prompt_tokens=100, output_tokens=50)


def a_view(name: str = "cpu", price: float = 3.6, **changes: Any) -> PoolView:
    """A pool with a worker of four slots, for 3.6 dollars an hour: a tenth of a cent a second."""
    fields: dict[str, Any] = {"slots": 4, "ready": 1}
    pool = changes.pop("pool", a_pool(name, price_per_hour_usd=price))
    return PoolView(pool, **{**fields, **changes})


def a_profile(**changes: Any) -> Profile:
    fields: dict[str, Any] = {"base_ms": 100.0, "spread": 2.0}
    return Profile("echo", "1", "cpu", "cpu", **{**fields, **changes})


@pytest.mark.parametrize(
    ("seconds", "items", "slots", "expected"),
    [(10, 1, 4, 2.5), (10, 4, 4, 10), (10, 9, 4, 10), (10, 1, 0, 10), (-1, 1, 4, 0)],
)
def test_an_item_is_charged_its_share_of_the_slots_and_never_more_than_the_worker(
    seconds: float, items: int, slots: int, expected: float
) -> None:
    assert work_s(seconds, items, slots) == expected


def test_a_second_of_a_worker_costs_a_3600th_of_its_hour() -> None:
    assert usd(a_pool(price_per_hour_usd=3.6), 10) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("up_at", "expected"), [(None, 0), (90.0, 0), (104.0, 4000), (110.0, 10_000), (200.0, 10_000)]
)
def test_the_cold_part_of_a_wait_ends_when_a_worker_is_up(
    up_at: float | None, expected: float
) -> None:
    assert cold_ms(100.0, 110.0, up_at) == expected


def test_the_first_after_a_quiet_hour_pays_for_a_part_of_it_and_the_next_for_the_rest() -> None:
    idle = IdleTime(0.0).until(MAX_IDLE_S, MAX_IDLE_S, 0.0)

    first = idle.share_s(1.0)
    after = idle.less(first)
    of_a_minute = after.share_s(SPREAD_OVER_S)

    assert first == pytest.approx(MAX_IDLE_S / SPREAD_OVER_S, rel=0.01)
    assert of_a_minute == pytest.approx(after.idle_s * (1 - 1 / math.e))


def test_of_a_week_without_requests_only_an_hour_waits_to_be_paid() -> None:
    week_s = 7 * 86_400.0
    assert IdleTime(0.0).until(week_s, week_s, 0.0).idle_s == MAX_IDLE_S
    assert IdleTime(0.0).until(week_s, 2 * week_s, 0.0, 2).idle_s == 2 * MAX_IDLE_S


@given(st.lists(st.tuples(st.floats(0.0, 900.0), st.floats(0.0, 60.0)), min_size=1, max_size=60))
def test_requests_never_pay_for_more_than_the_workers_were_up(
    gaps: list[tuple[float, float]],
) -> None:
    idle, now, paid_s, busy_s = IdleTime(0.0), 0.0, 0.0, 0.0
    for gap_s, request_s in gaps:
        now += gap_s + request_s
        idle = idle.until(now, gap_s + request_s, request_s)
        share_s = idle.share_s(request_s)
        idle = idle.less(share_s)
        paid_s, busy_s = paid_s + share_s, busy_s + request_s
    assert paid_s + busy_s <= now * (1 + 1e-9) + 1e-6


@pytest.mark.parametrize("use", [0.05, 0.2, 0.7])
def test_in_the_long_run_requests_pay_the_whole_bill_whatever_the_load(use: float) -> None:
    idle, paid_s, request_s = IdleTime(0.0), 0.0, 2.0
    gap_s = request_s / use
    rounds = int(50_000 / gap_s)
    for at in range(rounds):
        idle = idle.until((at + 1) * gap_s, gap_s, request_s)
        share_s = idle.share_s(request_s)
        idle = idle.less(share_s)
        paid_s += share_s + request_s
    assert paid_s == pytest.approx(rounds * gap_s, rel=0.06)


def test_time_counts_from_when_a_worker_is_up_and_only_once() -> None:
    idle, first_s = IdleTime(100.0).charged(130.0, [90.0, 120.0], 10.0)

    assert idle.at == 130.0
    assert first_s + idle.idle_s == pytest.approx(30.0)  # 30 + 10 up, less 10 of work
    again, second_s = idle.charged(130.0, [90.0, 120.0], 1.0)
    assert second_s + again.idle_s == pytest.approx(idle.idle_s - 1.0)


def test_a_request_with_several_samples_has_one_receipt() -> None:
    one = Receipt("1", 5.0, 3.0, 100.0, 1, "cpu", "cpu", "w-1", Usage(10, 20), Cost(0.1, 0.01))
    other = replace(one, queue_ms=9.0, inference_ms=50.0, usage=Usage(10, 5, 4))

    both = combined([one, other], 2)

    assert (both.queue_ms, both.cold_ms, both.inference_ms, both.batch_size) == (9.0, 3.0, 100.0, 2)
    assert (both.pool, both.worker) == ("cpu", "w-1")
    assert both.usage == Usage(20, 25, 4)
    assert both.cost.total_usd == pytest.approx(0.22)
    assert combined([one, replace(other, worker="w-2")]).worker == ""
    assert combined([one]) is one


def test_an_estimate_is_of_the_dearest_pool_at_its_slowest() -> None:
    cheap = a_view("cheap", 0.36, profile=a_profile())
    dear = a_view("dear", 3.6, profile=a_profile(company=1.0))

    # 100 ms alone, 400 ms among four, 800 ms at the 99th percentile; a quarter of 0.001 $/s.
    assert estimated_usd(NEED, [cheap, dear], 60.0) == pytest.approx(0.0002)


def test_an_estimate_where_nothing_was_measured_is_for_all_the_time_it_may_take() -> None:
    assert estimated_usd(NEED, [a_view()], 60.0) == pytest.approx(0.015)
    measured = a_view(seconds_per_item=1.0)
    assert estimated_usd(NEED, [measured], 60.0) == pytest.approx(0.0005)
    assert estimated_usd(NEED, [measured], 0.5) == pytest.approx(0.000125)
    assert estimated_usd(replace(NEED, items=8), [measured], 60.0) == pytest.approx(0.004)


def test_an_estimate_of_what_is_paid_by_the_call_is_for_a_worker_of_its_own() -> None:
    pool = a_pool("cpu", price_per_hour_usd=3.6, paid_by_call=True)

    view = a_view(pool=pool, profile=a_profile(company=1.0))

    # 100 ms alone, 200 ms at the 99th percentile, at 0.001 $/s.
    assert estimated_usd(NEED, [view], 60.0) == pytest.approx(0.0002)
    assert estimated_usd(NEED, [a_view(pool=pool)], 60.0) == pytest.approx(0.06)
    assert estimated_usd(replace(NEED, items=8), [a_view(pool=pool)], 60.0) == pytest.approx(0.12)


def test_pools_that_are_free_are_estimated_at_nothing() -> None:
    assert estimated_usd(NEED, [a_view(price=0.0)], 60.0) == 0.0


def test_what_no_pool_serves_is_not_for_free_but_unknown() -> None:
    with pytest.raises(ValueError, match="no pool"):
        estimated_usd(NEED, [], 60.0)
