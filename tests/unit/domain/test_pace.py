"""The pace: what company costs an item, learned from those that ended."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.pace import (
    MAX_SAMPLES,
    MIN_SAMPLES,
    REFIT_S,
    REFIT_SAMPLES,
    WINDOW_S,
    Pace,
    Pacemaker,
    fitted,
)

SECONDS = st.floats(0.0, 1000.0)
PACES = st.builds(Pace, SECONDS, st.floats(0.0, 100.0))
POINTS = st.lists(st.tuples(st.floats(1.0, 1000.0), SECONDS), min_size=1, max_size=40)


@given(st.floats(0.0, 100.0), st.floats(0.001, 10.0), st.sets(st.integers(1, 64), min_size=3))
def test_a_line_is_found_again(alone_s: float, each_s: float, crowds: set[int]) -> None:
    found = fitted([(n, alone_s + n * each_s) for n in crowds])

    assert found.alone_s == pytest.approx(alone_s, abs=1e-3)
    assert found.each_s == pytest.approx(each_s, rel=1e-3, abs=1e-4)


@given(POINTS)
def test_a_line_neither_falls_nor_starts_below_nothing(points: list[tuple[float, float]]) -> None:
    found = fitted(points)

    assert found.alone_s >= 0
    assert found.each_s >= 0
    assert all(math.isfinite(part) for part in (found.alone_s, found.each_s))


def test_items_that_all_had_the_same_company_tell_only_their_mean() -> None:
    assert fitted([(4, 1.0), (4, 3.0)]) == Pace(2.0, 0.0)


def test_a_fall_is_taken_for_chance() -> None:
    assert fitted([(1, 3.0), (5, 1.0)]) == Pace(2.0, 0.0)


def test_a_line_that_would_start_below_nothing_goes_through_it() -> None:
    found = fitted([(1, 0.1), (2, 3.0), (3, 6.0)])

    assert found.alone_s == 0.0
    assert found.seconds(2) == pytest.approx(9.1 / 3)


@given(PACES, SECONDS)
def test_among_the_most_an_item_is_in_time_and_among_more_it_is_not(
    pace: Pace, timeout_s: float
) -> None:
    most = pace.most(timeout_s)

    if most == math.inf:
        assert pace.seconds(1000) <= timeout_s * (1 + 1e-5)
    else:
        assert most == 0 or pace.seconds(math.floor(most)) <= timeout_s * (1 + 1e-9)
        assert pace.seconds(math.floor(most) + 1) * (1 + 1e-9) >= timeout_s


@given(PACES, st.integers(0, 300), st.integers(0, 300))
def test_the_time_to_drain_is_never_promised_too_short(pace: Pace, start: int, end: int) -> None:
    step_by_step_s = sum(pace.seconds(k) / k for k in range(end + 1, start + 1))

    assert pace.drain_s(start, end) * (1 + 1e-9) >= step_by_step_s


def test_too_few_samples_tell_nothing() -> None:
    maker = Pacemaker()
    for _ in range(MIN_SAMPLES - 1):
        maker.ended(0.0, 1, 2.0)
    assert maker.pace(0.0) is None

    maker.ended(0.0, 1, 2.0)
    assert maker.pace(0.0) == Pace(2.0, 0.0)


def test_old_samples_are_forgotten() -> None:
    maker = Pacemaker()
    for _ in range(MIN_SAMPLES):
        maker.ended(0.0, 1, 2.0)

    assert maker.pace(WINDOW_S) is not None
    assert maker.pace(WINDOW_S + 1) is None


def test_the_line_follows_within_a_few_samples_or_a_moment() -> None:
    maker = Pacemaker()
    for _ in range(MIN_SAMPLES):
        maker.ended(0.0, 1, 2.0)
    before = maker.pace(0.0)

    maker.ended(0.0, 1, 20.0)
    assert maker.pace(0.0) == before
    assert maker.pace(REFIT_S) == Pace((MIN_SAMPLES * 2.0 + 20.0) / (MIN_SAMPLES + 1), 0.0)

    for _ in range(REFIT_SAMPLES):
        maker.ended(REFIT_S, 1, 20.0)
    found = maker.pace(REFIT_S)
    assert found is not None
    assert found.alone_s > 10.0


def test_the_latest_samples_push_out_the_first() -> None:
    maker = Pacemaker()
    for _ in range(MAX_SAMPLES):
        maker.ended(0.0, 1, 100.0)
    for _ in range(MAX_SAMPLES):
        maker.ended(1.0, 1, 2.0)

    assert maker.pace(1.0) == Pace(2.0, 0.0)
