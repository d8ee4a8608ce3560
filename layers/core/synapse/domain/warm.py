"""Warm windows: how many workers are kept up for a model at a time of the week, work or no work."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, tzinfo
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from synapse.domain.pool import Pool, WarmWindow


def is_open(window: WarmWindow, now: float) -> bool:
    """Whether the window is open at `now`, by the clock on the wall of its time zone.

    A window that ends before it begins lasts over midnight, and belongs to the day on which it
    began. Where the clock is put forward, a window that begins in the missing hour begins when
    that hour is over; where it is put back, minutes of the hour that comes twice count twice.

    Raises:
        ValueError: the time zone is not known.
    """
    local = datetime.fromtimestamp(now, UTC).astimezone(zone(window.timezone))
    minute, day = local.hour * 60 + local.minute, local.weekday()
    if window.from_minute < window.until_minute:
        return day in window.days and window.from_minute <= minute < window.until_minute
    if minute >= window.from_minute:
        return day in window.days
    return minute < window.until_minute and (day - 1) % 7 in window.days


def warm_workers(pool: Pool, now: float) -> int:
    """How many workers of the pool are to be up at `now`, at most as many as it may have.

    A worker serves all models of its pool, so the windows of several models overlap: the largest
    decides.
    """
    return min(pool.max_workers, most_wanted(pool.warm, now))


def most_wanted(windows: Iterable[WarmWindow], now: float) -> int:
    """The largest number of workers that any of the windows asks for at `now`."""
    return max((window.workers for window in windows if is_open(window, now)), default=0)


@cache
def zone(name: str) -> tzinfo:
    """The time zone of that name in the IANA database.

    Raises:
        ValueError: there is none.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"timezone {name!r} is not in the IANA database") from error
