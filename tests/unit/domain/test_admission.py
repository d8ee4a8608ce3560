"""Admission: what is let in is answered in time, by what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.admission import (
    MAX_RETRY_AFTER_S,
    MIN_RETRY_AFTER_S,
    AdmissionPolicy,
    Demand,
    Speed,
    slot_time_s,
)
from synapse.domain.estimate import ServiceRate, estimated_wait_s
from synapse.domain.job import SlaTier
from synapse.domain.pace import Pace

POLICY = AdmissionPolicy()
UNMEASURED = ServiceRate(0, 0.0)
RATES = st.builds(ServiceRate, st.integers(1, 10_000), st.floats(0.001, 1e5))
SLOTS = st.integers(1, 64)
ITEMS = st.integers(1, 128)
TIMEOUTS = st.floats(0.001, 3600.0)
WAITING_TIERS = st.sampled_from([SlaTier.GOLD, SlaTier.SILVER])
DEMANDS = st.builds(Demand, ITEMS, TIMEOUTS, WAITING_TIERS)
PACES = st.builds(Pace, st.floats(0.0, 100.0), st.floats(0.001, 10.0))
ALMOST = 1 + 1e-9
"""Sums of floats differ in their last digit."""


def predicted_s(ahead: int, items: int, rate: ServiceRate, slots: int) -> float | None:
    """Seconds until the last of `items` that join behind `ahead` ends; None if nothing is known."""
    per_item_s = rate.seconds_per_item
    wait_s = estimated_wait_s(max(1, ahead + items - slots + 1), rate, slots)
    return None if per_item_s is None or wait_s is None else wait_s + per_item_s


@given(DEMANDS, RATES, SLOTS, st.integers(0, 1000))
def test_what_is_admitted_behind_others_is_predicted_to_end_in_time(
    demand: Demand, rate: ServiceRate, slots: int, fewer: int
) -> None:
    ahead = POLICY.limit(demand, Speed(slots, rate)) - demand.items - fewer

    if ahead + demand.items > max(slots, demand.items):
        finish_s = predicted_s(ahead, demand.items, rate, slots)
        assert finish_s is not None
        assert finish_s <= demand.timeout_s * ALMOST


@given(DEMANDS, RATES, SLOTS)
def test_nothing_is_refused_that_would_end_in_time(
    demand: Demand, rate: ServiceRate, slots: int
) -> None:
    limit = POLICY.limit(demand, Speed(slots, rate))

    if limit < slots * POLICY.max_per_slot:
        one_more = predicted_s(max(0, limit + 1 - demand.items), demand.items, rate, slots)
        assert one_more is not None
        assert one_more * ALMOST > demand.timeout_s or limit + 1 <= demand.items


@given(DEMANDS, RATES, SLOTS, st.integers(0, 1000))
def test_a_stream_that_is_admitted_behind_others_is_predicted_to_start_in_time(
    demand: Demand, rate: ServiceRate, slots: int, fewer: int
) -> None:
    demand = replace(demand, is_stream=True)
    ahead = POLICY.limit(demand, Speed(slots, rate)) - demand.items - fewer

    if ahead + demand.items > max(slots, demand.items):
        wait_s = estimated_wait_s(ahead + demand.items - slots + 1, rate, slots)
        assert wait_s is not None
        assert wait_s <= demand.timeout_s * ALMOST


@given(DEMANDS, RATES, SLOTS)
def test_a_stream_is_never_refused_where_a_whole_answer_is_not(
    demand: Demand, rate: ServiceRate, slots: int
) -> None:
    stream = replace(demand, is_stream=True)

    assert POLICY.limit(stream, Speed(slots, rate)) >= POLICY.limit(demand, Speed(slots, rate))


@given(DEMANDS, RATES, SLOTS, st.integers(1, 16))
def test_more_slots_never_admit_less(
    demand: Demand, rate: ServiceRate, slots: int, more: int
) -> None:
    assert POLICY.limit(demand, Speed(slots + more, rate)) >= POLICY.limit(
        demand, Speed(slots, rate)
    )


@given(DEMANDS, RATES, SLOTS, st.floats(1.0, 100.0))
def test_a_faster_model_never_admits_less(
    demand: Demand, rate: ServiceRate, slots: int, faster: float
) -> None:
    quick = ServiceRate(rate.items, rate.busy_s / faster)

    assert POLICY.limit(demand, Speed(slots, quick)) >= POLICY.limit(demand, Speed(slots, rate))


@given(DEMANDS, RATES, SLOTS, st.floats(0.0, 3600.0))
def test_a_more_patient_caller_is_never_refused_sooner(
    demand: Demand, rate: ServiceRate, slots: int, more_s: float
) -> None:
    patient = Demand(demand.items, demand.timeout_s + more_s, demand.tier)

    assert POLICY.limit(patient, Speed(slots, rate)) >= POLICY.limit(demand, Speed(slots, rate))


@given(DEMANDS, RATES | st.just(UNMEASURED), SLOTS)
def test_what_starts_at_once_is_always_admitted(
    demand: Demand, rate: ServiceRate, slots: int
) -> None:
    assert POLICY.limit(demand, Speed(slots, rate)) >= max(slots, demand.items)


@given(ITEMS, TIMEOUTS, RATES | st.just(UNMEASURED), SLOTS)
def test_flex_never_waits_for_others(
    items: int, timeout_s: float, rate: ServiceRate, slots: int
) -> None:
    limit = POLICY.limit(Demand(items, timeout_s, SlaTier.BRONZE), Speed(slots, rate))

    others = limit - items
    assert others == max(0, slots - items)


@given(DEMANDS, SLOTS)
def test_before_anything_was_measured_a_plain_bound_holds(demand: Demand, slots: int) -> None:
    limit = POLICY.limit(demand, Speed(slots, UNMEASURED))

    assert limit == max(demand.items, slots * POLICY.unmeasured_per_slot)


@given(st.floats(0.001, 1e9), SLOTS)
def test_a_model_that_takes_no_time_is_bounded_all_the_same(timeout_s: float, slots: int) -> None:
    limit = POLICY.limit(Demand(1, timeout_s), Speed(slots, ServiceRate(10, 0.0)))

    assert limit == slots * POLICY.max_per_slot


@given(DEMANDS, RATES | st.just(UNMEASURED), SLOTS, st.integers(0, 20_000))
def test_the_time_to_come_back_is_one_that_clients_honour(
    demand: Demand, rate: ServiceRate, slots: int, in_flight: int
) -> None:
    retry_after_s = POLICY.retry_after_s(demand, in_flight, Speed(slots, rate))

    assert MIN_RETRY_AFTER_S <= retry_after_s <= MAX_RETRY_AFTER_S
    assert isinstance(retry_after_s, int)


@given(DEMANDS, RATES, SLOTS, st.integers(0, 20_000))
def test_who_comes_back_then_finds_room_at_the_measured_speed(
    demand: Demand, rate: ServiceRate, slots: int, in_flight: int
) -> None:
    retry_after_s = POLICY.retry_after_s(demand, in_flight, Speed(slots, rate))

    if retry_after_s < MAX_RETRY_AFTER_S:
        per_item_s = rate.seconds_per_item
        assert per_item_s is not None
        left = in_flight - retry_after_s * slots / per_item_s
        assert left + demand.items <= POLICY.limit(demand, Speed(slots, rate)) * ALMOST


@given(RATES, SLOTS, ITEMS, st.integers(0, 1000))
def test_what_a_busy_model_took_tells_the_speed_that_predicts_it(
    rate: ServiceRate, slots: int, items: int, ahead: int
) -> None:
    took_s = predicted_s(ahead, items, rate, slots)
    assert took_s is not None

    measured_s = slot_time_s(took_s, ahead, items, slots)

    assert measured_s == pytest.approx(rate.seconds_per_item)


@given(DEMANDS, RATES, SLOTS, PACES)
def test_what_is_admitted_into_company_ends_in_time_by_its_pace(
    demand: Demand, rate: ServiceRate, slots: int, pace: Pace
) -> None:
    limit = POLICY.limit(demand, Speed(slots, rate, pace))

    if limit > demand.items:
        assert pace.seconds(limit) <= demand.timeout_s * ALMOST


@given(DEMANDS, RATES, SLOTS, PACES)
def test_a_pace_never_admits_more_and_never_refuses_who_comes_to_an_idle_model(
    demand: Demand, rate: ServiceRate, slots: int, pace: Pace
) -> None:
    limit = POLICY.limit(demand, Speed(slots, rate, pace))

    assert demand.items <= limit <= POLICY.limit(demand, Speed(slots, rate))


@given(DEMANDS, RATES, SLOTS, PACES)
def test_company_that_slows_a_stream_down_does_not_keep_it_from_starting(
    demand: Demand, rate: ServiceRate, slots: int, pace: Pace
) -> None:
    stream = replace(demand, is_stream=True)

    assert POLICY.limit(stream, Speed(slots, rate, pace)) == POLICY.limit(
        stream, Speed(slots, rate)
    )


@given(DEMANDS, RATES, SLOTS, PACES, st.integers(0, 2000))
def test_who_comes_back_then_finds_room_at_the_pace(
    demand: Demand, rate: ServiceRate, slots: int, pace: Pace, in_flight: int
) -> None:
    speed = Speed(slots, rate, pace)
    retry_after_s = POLICY.retry_after_s(demand, in_flight, speed)

    assert MIN_RETRY_AFTER_S <= retry_after_s <= MAX_RETRY_AFTER_S
    left, spent_s = in_flight, 0.0
    while left and spent_s + pace.seconds(left) / left <= retry_after_s * ALMOST:
        spent_s += pace.seconds(left) / left
        left -= 1
    if retry_after_s < MAX_RETRY_AFTER_S:
        assert left + demand.items <= POLICY.limit(demand, speed)


def test_nothing_is_predicted_of_a_model_that_was_never_measured() -> None:
    assert predicted_s(0, 1, UNMEASURED, 8) is None


def test_the_limit_is_littles_law() -> None:
    # 4 slots of 2 s: 2 a second. 10 s leave 8 s to wait, in which 16 end.
    limit = POLICY.limit(Demand(1, 10.0), Speed(4, ServiceRate(100, 200.0)))

    assert limit == 4 + 16
    assert predicted_s(19, 1, ServiceRate(100, 200.0), 4) == 10.0
    assert POLICY.retry_after_s(Demand(1, 10.0), 25, Speed(4, ServiceRate(100, 200.0))) == 3
