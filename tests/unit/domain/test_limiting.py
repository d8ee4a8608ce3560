"""Limiting: which limit is told, when to come again, and what headers say."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.access import Limits
from synapse.domain.errors import LimitReached
from synapse.domain.limiting import Left, Standing, duration, error_of, verdict_on
from synapse.domain.metering import (
    Bounds,
    Counts,
    MeterId,
    Reservation,
    ReservationId,
    minute_of,
    month_of,
)

KEY, TENANT = MeterId("acme", "one"), MeterId("acme")
NOW = 1_800_000_000.0 + 22.75
"""A moment that is 37.25 s before the end of its minute."""


def told(
    bounds: Bounds, tokens: int = 10, nano: int = 5, many: int = 1, **counted: Any
) -> LimitReached:
    """The error of a request that is refused, the meters showing what was `counted`."""
    counts = Counts(minute=minute_of(NOW), month=month_of(NOW), **counted)
    asked = Reservation(
        ReservationId("acme", "r", 0), tuple(bounds), NOW, tokens, nano, False, many
    )
    verdict = verdict_on(bounds, dict.fromkeys(bounds, counts), asked)
    assert verdict.refusal is not None
    return error_of(verdict.refusal, verdict.standing)


def test_a_full_minute_is_to_be_waited_out() -> None:
    error = told({KEY: Limits(requests_per_minute=100)}, requests=100)
    assert (error.code, error.retry_after_s) == ("rate_limit_exceeded", 38)
    assert "this key or user may send 100 requests a minute; try again in 38 s" in error.message


def test_what_is_under_way_ends_soon() -> None:
    error = told({TENANT: Limits(concurrent_jobs=3)}, open=3)
    assert (error.code, error.retry_after_s) == ("rate_limit_exceeded", 2)
    assert "the tenant may have 3" in error.message


def test_a_budget_that_is_used_up_is_not_waited_for() -> None:
    error = told({KEY: Limits(monthly_usd=2.5)}, nano_usd=2_499_999_999)
    assert (error.code, error.retry_after_s) == ("insufficient_quota", None)
    assert "2.5 USD a month" in error.message


def test_money_that_is_only_reserved_comes_back_soon() -> None:
    counted = {"nano_usd": 100, "held": 5}
    error = told({KEY: Limits(monthly_usd=1e-7)}, nano=5, **counted)
    assert (error.code, error.retry_after_s) == ("rate_limit_exceeded", 2)
    assert "is reserved by jobs and requests under way" in error.message
    assert "wait for the next month" not in error.message
    error = told({KEY: Limits(monthly_usd=1e-7)}, nano=6, **counted)
    assert (error.code, error.retry_after_s) == ("insufficient_quota", None)


def test_a_budget_that_is_used_up_refuses_what_seems_to_cost_nothing() -> None:
    assert told({KEY: Limits(monthly_usd=1e-7)}, nano=0, nano_usd=100).code == "insufficient_quota"


def test_what_can_never_fit_is_not_to_be_tried_again() -> None:
    error = told({KEY: Limits(tokens_per_minute=9)})
    assert (error.code, error.retry_after_s) == ("rate_limit_exceeded", None)
    assert "9 tokens a minute" in error.message
    assert "may use 10" in error.message
    assert "smaller max_tokens" in error.message


def test_so_many_at_once_as_can_never_fit_are_not_to_be_tried_again() -> None:
    error = told({KEY: Limits(requests_per_minute=10)}, many=11)
    assert (error.code, error.retry_after_s) == ("rate_limit_exceeded", None)
    assert "10 requests a minute, and this one counts as 11; send fewer prompts" in error.message
    assert told({KEY: Limits(concurrent_jobs=4)}, many=5).retry_after_s is None
    assert told({KEY: Limits(requests_per_minute=10)}, many=10, requests=1).retry_after_s == 38


def test_of_several_limits_that_are_in_the_way_the_longest_is_told() -> None:
    limits = Limits(requests_per_minute=1, tokens_per_minute=10, concurrent_jobs=1)
    assert "requests a minute" in told({KEY: limits}, requests=1, tokens=10, open=1).message
    held = Limits(requests_per_minute=1, monthly_usd=1e-8)
    assert told({KEY: held}, requests=1, nano_usd=10, held=10).retry_after_s == 38
    spent = Limits(requests_per_minute=1, monthly_usd=1e-9)
    assert told({KEY: limits, TENANT: spent}, requests=1, nano_usd=1).code == "insufficient_quota"


def test_headers_tell_what_is_left_in_the_words_of_openai() -> None:
    standing = Standing(Left(59, 60), Left(149_984, 150_000), 37.25)
    assert standing.headers() == {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-reset-requests": "37.25s",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-tokens": "37.25s",
    }
    assert Standing().headers() == {}


def test_an_error_has_the_headers_of_what_is_left() -> None:
    error = told({KEY: Limits(requests_per_minute=100)}, requests=100)
    assert error.headers["x-ratelimit-remaining-requests"] == "0"
    assert error.headers["x-ratelimit-reset-requests"] == "37.25s"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.012, "12ms"),
        (0.0, "1ms"),
        (1.0, "1s"),
        (59.943, "59.943s"),
        (60.0, "1m0s"),
        (360, "6m0s"),
    ],
)
def test_durations_are_written_as_openai_writes_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.floats(0, 3600))
def test_a_duration_is_never_told_shorter_than_it_is(seconds: float) -> None:
    match = re.fullmatch(r"(?:(\d+)m)?(?:([\d.]+)s)?|(\d+)ms", duration(seconds))
    assert match is not None
    minutes, rest, milliseconds = match.groups()
    read_s = int(minutes or 0) * 60 + float(rest or 0) + int(milliseconds or 0) / 1000
    assert seconds - 1e-9 <= read_s <= seconds + 0.0011
