"""Warm windows by the clock on the wall, also where the clock is put on or back."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.pool import Pool, WarmWindow
from synapse.domain.warm import is_open, warm_workers

BERLIN = ZoneInfo("Europe/Berlin")
WORKDAYS = frozenset(range(5))
OFFICE = WarmWindow(
    "echo", 2, WORKDAYS, from_minute=8 * 60, until_minute=18 * 60, timezone="Europe/Berlin"
)


def at(text: str, zone: ZoneInfo = BERLIN) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()


@pytest.mark.parametrize(
    ("moment", "is_warm"),
    [
        ("2026-11-20T08:00", True),  # a Friday
        ("2026-11-20T07:59", False),
        ("2026-11-20T17:59", True),
        ("2026-11-20T18:00", False),
        ("2026-11-21T12:00", False),  # a Saturday
    ],
)
def test_a_window_is_open_from_its_first_minute_to_before_its_last(
    moment: str, is_warm: bool
) -> None:
    assert is_open(OFFICE, at(moment)) is is_warm


def test_a_window_keeps_to_the_wall_clock_when_summer_time_begins_and_ends() -> None:
    # 2026-03-29 and 2026-10-25 are the Sundays; the Mondays after them differ by an hour of UTC.
    before, after = at("2026-03-27T08:00"), at("2026-03-30T08:00")

    assert is_open(OFFICE, before)
    assert is_open(OFFICE, after)
    assert not is_open(OFFICE, before - 60)
    assert not is_open(OFFICE, after - 60)
    assert (after - before) % 86_400 == 23 * 3600


def test_a_window_in_the_hour_that_is_left_out_begins_when_that_hour_is_over() -> None:
    window = WarmWindow("echo", from_minute=150, until_minute=240, timezone="Europe/Berlin")
    last_winter_second = datetime(2026, 3, 29, 0, 59, 59, tzinfo=UTC).timestamp()

    assert not is_open(window, last_winter_second)
    assert is_open(window, last_winter_second + 1)


def test_a_window_in_the_hour_that_comes_twice_is_open_both_times() -> None:
    window = WarmWindow("echo", from_minute=150, until_minute=160, timezone="Europe/Berlin")
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC).timestamp()

    assert [is_open(window, first + hours * 3600) for hours in (0, 1, 2)] == [True, True, False]


def test_a_window_over_midnight_belongs_to_the_day_on_which_it_began() -> None:
    friday_night = WarmWindow("echo", days=frozenset({4}), from_minute=22 * 60, until_minute=120)

    assert is_open(friday_night, at("2026-11-20T23:00", ZoneInfo("UTC")))
    assert is_open(friday_night, at("2026-11-21T01:59", ZoneInfo("UTC")))
    assert not is_open(friday_night, at("2026-11-21T02:00", ZoneInfo("UTC")))
    assert not is_open(friday_night, at("2026-11-20T01:00", ZoneInfo("UTC")))


@given(st.floats(0, 4e9))
def test_the_plain_window_is_open_always(now: float) -> None:
    assert is_open(WarmWindow("echo"), now)


def test_the_largest_open_window_decides_within_what_the_pool_may_have() -> None:
    always = WarmWindow("embed", 1)
    pool = Pool("cpu", "cpu", max_workers=3, warm=(OFFICE, always))
    small = Pool("cpu", "cpu", max_workers=1, warm=(OFFICE,))

    assert warm_workers(pool, at("2026-11-20T12:00")) == 2
    assert warm_workers(pool, at("2026-11-20T20:00")) == 1
    assert warm_workers(small, at("2026-11-20T12:00")) == 1
    assert warm_workers(Pool("cpu", "cpu"), at("2026-11-20T12:00")) == 0


def test_a_time_zone_that_nobody_knows_is_named() -> None:
    with pytest.raises(ValueError, match="'Berlin' is not in the IANA database"):
        is_open(WarmWindow("echo", timezone="Berlin"), 0.0)
