"""Place in the queue and expected wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.estimate import ServiceRate, estimated_wait_s, queue_position
from synapse.domain.job import Priority
from synapse.domain.model import Task

DEPTHS = st.dictionaries(st.sampled_from(Priority), st.integers(0, 10_000))
RATES = st.builds(ServiceRate, st.integers(1, 10_000), st.floats(0.001, 1e5))
SLOTS = st.integers(1, 64)


def test_the_first_in_an_empty_queue_is_next() -> None:
    assert queue_position({}, Priority.LOW) == 1


def test_a_job_stands_behind_its_own_priority_and_those_above() -> None:
    depth = {Priority.HIGH: 100, Priority.NORMAL: 10, Priority.LOW: 1}

    assert queue_position(depth, Priority.HIGH) == 101
    assert queue_position(depth, Priority.NORMAL) == 111
    assert queue_position(depth, Priority.LOW) == 112


@given(DEPTHS)
def test_a_higher_priority_never_stands_further_back(depth: dict[Priority, int]) -> None:
    positions = [queue_position(depth, priority) for priority in Priority]

    assert positions == sorted(positions)


def test_a_ping_tells_of_brief_items_but_of_no_generation() -> None:
    pinged, measured = ServiceRate(1, 0.02, is_guess=True), ServiceRate(1, 2.0)

    assert pinged.of_items(Task.EMBED) is pinged
    assert pinged.of_items(Task.GENERATE) == ServiceRate(0, 0.0, is_guess=True)
    assert measured.of_items(Task.GENERATE) is measured


def test_nothing_measured_is_no_estimate() -> None:
    assert ServiceRate(0, 0.0).seconds_per_item is None
    assert estimated_wait_s(5, ServiceRate(0, 0.0), 8) is None


@given(RATES, SLOTS)
def test_whoever_is_next_starts_now(rate: ServiceRate, slots: int) -> None:
    assert estimated_wait_s(1, rate, slots) == 0


def test_the_queue_ahead_drains_at_the_measured_rate() -> None:
    assert estimated_wait_s(101, ServiceRate(50, 10.0), slots=4) == pytest.approx(5.0)


@given(st.integers(1, 10_000), RATES, SLOTS)
def test_twice_the_slots_halve_the_wait(position: int, rate: ServiceRate, slots: int) -> None:
    once, twice = (estimated_wait_s(position, rate, n) for n in (slots, 2 * slots))

    assert once is not None and twice is not None
    assert once == pytest.approx(2 * twice)
