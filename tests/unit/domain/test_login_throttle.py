"""How often a password may be guessed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.errors import LimitReached
from synapse.domain.login_throttle import (
    ALL_FORGIVEN_S,
    FIRST_PAUSE_S,
    FREE_ATTEMPTS,
    FREE_ATTEMPTS_OF_ADDRESS,
    LoginThrottle,
)
from tests.factories import NOW

HERE = "203.0.113.7"


def pause_s(throttle: LoginThrottle, now: float, username: str = "ada", address: str = HERE) -> int:
    with pytest.raises(LimitReached) as caught:
        throttle.begin(username, address, now)
    assert caught.value.retry_after_s is not None
    return caught.value.retry_after_s


def test_a_few_failures_are_free_then_each_one_makes_the_pause_longer() -> None:
    throttle, now, pauses = LoginThrottle(), NOW, []
    for _ in range(FREE_ATTEMPTS):
        throttle.begin("ada", HERE, now)
    for _ in range(9):
        pauses.append(pause_s(throttle, now))
        now += pauses[-1]
        throttle.begin("ada", HERE, now)

    # In so long a pause one failure is forgiven: there it stays.
    assert pauses == [10, 20, 40, 80, 160, 320, 640, 640, 640]


def test_an_attempt_during_a_pause_does_not_make_it_longer() -> None:
    throttle = LoginThrottle()
    for _ in range(FREE_ATTEMPTS):
        throttle.begin("ada", HERE, NOW)

    for second in range(9):
        assert pause_s(throttle, NOW + second) == 10 - second
    throttle.begin("ada", HERE, NOW + 10)


def test_who_has_a_network_of_ipv6_has_no_attempts_for_each_of_its_addresses() -> None:
    throttle = LoginThrottle()
    for n in range(FREE_ATTEMPTS):
        throttle.begin("ada", f"2001:db8:7::{n + 1:x}", NOW)

    assert pause_s(throttle, NOW, address="2001:db8:7::ffff:1") == FIRST_PAUSE_S
    throttle.begin("ada", "2001:db8:8::1", NOW)


def test_an_address_of_ipv4_is_the_same_however_it_is_written() -> None:
    throttle = LoginThrottle()
    for n in range(FREE_ATTEMPTS):
        throttle.begin("ada", HERE if n % 2 else f"::ffff:{HERE}", NOW)

    assert pause_s(throttle, NOW, address=f"::FFFF:{HERE}") == FIRST_PAUSE_S


def test_another_user_and_another_address_have_attempts_of_their_own() -> None:
    throttle = LoginThrottle()
    for _ in range(FREE_ATTEMPTS):
        throttle.begin("ada", HERE, NOW)

    throttle.begin("bob", HERE, NOW)
    throttle.begin("ada", "198.51.100.1", NOW)
    assert pause_s(throttle, NOW, "ADA") == FIRST_PAUSE_S


def test_a_success_forgives_what_came_before() -> None:
    throttle = LoginThrottle()
    for _ in range(10):
        for _ in range(FREE_ATTEMPTS - 1):
            throttle.begin("ada", HERE, NOW)
        throttle.succeeded("ada", HERE)


def test_one_good_account_does_not_buy_guesses_at_the_others() -> None:
    throttle = LoginThrottle()
    made = 0
    with pytest.raises(LimitReached):
        for n in range(10 * FREE_ATTEMPTS_OF_ADDRESS):
            throttle.begin(f"victim-{n}", HERE, NOW)
            made += 1
            throttle.begin("mallory", HERE, NOW)
            throttle.succeeded("mallory", HERE)

    assert made <= FREE_ATTEMPTS_OF_ADDRESS


def test_an_attempt_that_came_to_nothing_does_not_count() -> None:
    throttle = LoginThrottle()
    for _ in range(10 * FREE_ATTEMPTS):
        throttle.begin("ada", HERE, NOW)
        throttle.undecided("ada", HERE)

    throttle.begin("ada", HERE, NOW)


def test_failures_are_forgiven_with_time() -> None:
    throttle = LoginThrottle()
    for _ in range(FREE_ATTEMPTS):
        throttle.begin("ada", HERE, NOW)

    for _ in range(FREE_ATTEMPTS):
        throttle.begin("ada", HERE, NOW + ALL_FORGIVEN_S)


def test_a_busy_office_whose_people_mistype_is_not_shut_out() -> None:
    throttle, now = LoginThrottle(), NOW
    for n in range(1000):
        now += ALL_FORGIVEN_S / FREE_ATTEMPTS_OF_ADDRESS
        throttle.begin(f"user-{n}", HERE, now)
        throttle.begin(f"user-{n}", HERE, now)
        throttle.succeeded(f"user-{n}", HERE)


def test_only_so_much_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("synapse.domain.login_throttle.MAX_ENTRIES", 100)
    throttle = LoginThrottle()
    for n in range(1000):
        throttle.begin(f"user-{n}", f"192.0.2.{n}", NOW)

    assert len(throttle._failures) == 100


@given(st.lists(st.floats(0, 120), min_size=1, max_size=60))
def test_however_attempts_are_spread_few_pass(gaps_s: list[float]) -> None:
    throttle, now, passed = LoginThrottle(), NOW, 0
    for gap_s in gaps_s:
        now += gap_s
        try:
            throttle.begin("ada", HERE, now)
        except LimitReached:
            continue
        passed += 1

    most = FREE_ATTEMPTS * (1 + (now - NOW) / ALL_FORGIVEN_S) + 1
    doublings = math.log2(1 + (now - NOW) / FIRST_PAUSE_S)
    assert passed <= most + doublings
