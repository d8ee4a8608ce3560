"""The circuit breaker: opens on failures, lets one call try, closes when that goes well."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from synapse.domain.breaker import Breaker, BreakerPolicy, BreakerState, Ticket

POLICY = BreakerPolicy(open_s=1.0, max_open_s=8.0, calm_s=60.0, trial_s=5.0)


def opened(now: float = 0.0) -> Breaker:
    breaker = Breaker(POLICY)
    for _ in range(POLICY.in_a_row):
        breaker.failed(breaker.began(now), now)
    return breaker


def pause_s(breaker: Breaker, now: float) -> float:
    """For how long nothing goes through, in half seconds."""
    half_s = next(n for n in range(1000) if breaker.lets_through(now + n / 2))
    return half_s / 2


def test_it_opens_after_failures_in_a_row_and_lets_nothing_through() -> None:
    breaker = Breaker(POLICY)
    for _ in range(POLICY.in_a_row - 1):
        breaker.failed(breaker.began(0.0), 0.0)
        assert breaker.lets_through(0.0)

    breaker.failed(breaker.began(0.0), 0.0)

    assert breaker.state(0.0) is BreakerState.OPEN
    assert not breaker.lets_through(0.99)


def test_a_success_between_failures_begins_the_count_anew() -> None:
    breaker = Breaker(POLICY)
    for went_well in (False, False, True, False, False):
        ticket = breaker.began(0.0)
        breaker.succeeded(ticket, 0.0) if went_well else breaker.failed(ticket, 0.0)

    assert breaker.state(0.0) is BreakerState.CLOSED


def test_half_of_many_calls_failing_opens_it_though_never_in_a_row() -> None:
    breaker = Breaker(POLICY)
    for number in range(POLICY.min_calls):
        assert breaker.state(0.0) is BreakerState.CLOSED
        ticket = breaker.began(0.0)
        breaker.failed(ticket, 0.0) if number % 2 else breaker.succeeded(ticket, 0.0)

    assert breaker.state(0.0) is BreakerState.OPEN


def test_old_failures_are_no_part_of_the_share() -> None:
    breaker = Breaker(POLICY)
    for number in range(POLICY.min_calls):
        now = number * POLICY.window_s / 4
        ticket = breaker.began(now)
        breaker.failed(ticket, now) if number % 2 else breaker.succeeded(ticket, now)

    assert breaker.state(now) is BreakerState.CLOSED


def test_half_open_one_call_at_a_time_goes_through() -> None:
    breaker = opened()
    assert breaker.state(1.0) is BreakerState.HALF_OPEN
    assert breaker.lets_through(1.0)

    trial = breaker.began(1.0)
    assert not breaker.lets_through(1.5)
    breaker.succeeded(trial, 2.0)

    assert breaker.state(2.0) is BreakerState.CLOSED
    assert breaker.lets_through(2.0)


def test_a_trial_that_fails_opens_it_for_twice_as_long_up_to_a_limit() -> None:
    breaker, now, pauses_s = opened(), 0.0, []
    for _ in range(5):
        pauses_s.append(pause_s(breaker, now))
        now += pauses_s[-1]
        breaker.failed(breaker.began(now), now)

    assert pauses_s == [1.0, 2.0, 4.0, 8.0, 8.0]


def test_after_a_calm_time_it_opens_for_a_short_time_again() -> None:
    breaker = opened()
    breaker.failed(breaker.began(1.0), 1.0)
    breaker.succeeded(breaker.began(3.0), 3.0)
    now = 3.0 + POLICY.calm_s
    for _ in range(POLICY.in_a_row):
        breaker.failed(breaker.began(now), now)

    assert pause_s(breaker, now) == POLICY.open_s


@pytest.mark.parametrize("went_well", [True, False])
def test_calls_that_began_before_it_opened_tell_nothing_new(went_well: bool) -> None:
    breaker = Breaker(POLICY)
    early = breaker.began(0.0)
    for _ in range(POLICY.in_a_row):
        breaker.failed(breaker.began(0.0), 0.0)

    breaker.succeeded(early, 0.5) if went_well else breaker.failed(early, 0.5)

    assert breaker.state(0.5) is BreakerState.OPEN
    assert pause_s(breaker, 0.0) == 1.0


def test_a_probe_that_goes_well_closes_it_before_its_time() -> None:
    breaker = opened()

    breaker.succeeded(breaker.began(0.2), 0.3)

    assert breaker.state(0.3) is BreakerState.CLOSED


def test_a_trial_whose_caller_goes_away_makes_way_for_another() -> None:
    breaker = opened()
    breaker.dropped(breaker.began(1.0))

    assert breaker.lets_through(1.0)


def test_a_trial_that_is_never_heard_of_again_makes_way_in_the_end() -> None:
    breaker = opened()
    breaker.began(1.0)

    assert not breaker.lets_through(1.0 + POLICY.trial_s - 0.1)
    assert breaker.lets_through(1.0 + POLICY.trial_s)


def test_only_lateness_is_told_apart_from_failing() -> None:
    slow, mixed = Breaker(POLICY), Breaker(POLICY)
    for late in (True, True, True):
        slow.failed(slow.began(0.0), 0.0, mild=late)
    for late in (True, False, True):
        mixed.failed(mixed.began(0.0), 0.0, mild=late)

    assert slow.is_mild
    assert not mixed.is_mild


def late_but(early_ones: int) -> tuple[Breaker, list[Ticket]]:
    """One that opened for late answers, and calls from before that are still under way."""
    breaker = Breaker(POLICY)
    early = [breaker.began(0.0) for _ in range(early_ones)]
    for _ in range(POLICY.in_a_row):
        breaker.failed(breaker.began(0.0), 0.0, mild=True)
    assert breaker.is_mild
    return breaker, early


def test_who_was_thought_late_and_never_answers_is_failing_from_then_on() -> None:
    breaker, (first, second) = late_but(2)

    breaker.failed(first, 3.0)
    breaker.failed(second, 3.5)

    assert not breaker.is_mild
    assert breaker.state(3.5) is BreakerState.OPEN
    assert pause_s(breaker, 3.0) == 2 * POLICY.open_s


def test_more_late_answers_from_before_it_opened_tell_nothing_new() -> None:
    breaker, (call,) = late_but(1)

    breaker.failed(call, 0.5, mild=True)

    assert breaker.is_mild
    assert pause_s(breaker, 0.0) == POLICY.open_s


@pytest.mark.parametrize("answered", [True, False])
def test_a_trial_that_is_answered_late_shows_that_the_worker_answers(answered: bool) -> None:
    breaker = opened()

    breaker.failed(breaker.began(1.0), 1.5, mild=True, answered=answered)

    assert breaker.is_mild is answered
    assert breaker.state(1.5) is BreakerState.OPEN
    breaker.failed(breaker.began(1.6), 1.7)
    assert not breaker.is_mild


def test_what_fails_late_counts_no_more_once_the_worker_is_well_again() -> None:
    breaker, (call,) = late_but(1)
    breaker.succeeded(breaker.began(1.0), 1.1)

    breaker.failed(call, 3.0)

    assert breaker.state(3.0) is BreakerState.CLOSED
    assert not breaker.failures_in_a_row


class BreakerMachine(RuleBasedStateMachine):
    """Any calls in any order, some of them overlapping, some never heard of again."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = Breaker(POLICY)
        self.running: list[Ticket] = []
        self.failures_since_success = 0

    @rule(seconds=st.floats(0.0, 20.0))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.breaker.lets_through(self.now))
    @rule()
    def a_call_begins(self) -> None:
        half_open = self.breaker.state(self.now) is BreakerState.HALF_OPEN
        self.running.append(self.breaker.began(self.now))
        assert self.breaker.lets_through(self.now) is not half_open

    @precondition(lambda self: self.running)
    @rule(which=st.integers(0, 10), how=st.sampled_from(["well", "failed", "late", "dropped"]))
    def a_call_ends(self, which: int, how: str) -> None:
        ticket = self.running.pop(which % len(self.running))
        before = self.breaker.state(self.now)
        if how == "well":
            self.breaker.succeeded(ticket, self.now)
        elif how == "dropped":
            self.breaker.dropped(ticket)
        else:
            self.breaker.failed(ticket, self.now, mild=how == "late")
        after = self.breaker.state(self.now)
        # Only what goes well on trial closes it, only what fails opens it.
        assert after is before or (how == "well" and ticket.is_trial) or how in ("failed", "late")
        assert before is BreakerState.CLOSED or how == "well" or after is not BreakerState.CLOSED

    @invariant()
    def it_always_lets_somebody_try_in_the_end(self) -> None:
        later = self.now + POLICY.max_open_s + POLICY.trial_s
        assert self.breaker.lets_through(later)

    @invariant()
    def it_lets_through_all_or_one_or_none(self) -> None:
        state, free = self.breaker.state(self.now), self.breaker.lets_through(self.now)
        assert free or state is not BreakerState.CLOSED
        assert not free or state is not BreakerState.OPEN


TestBreakerMachine = BreakerMachine.TestCase


@given(st.lists(st.booleans(), max_size=60))
def test_a_breaker_without_failures_never_opens(gaps: list[bool]) -> None:
    breaker = Breaker(POLICY)
    for number, gap in enumerate(gaps):
        ticket = breaker.began(float(number))
        breaker.dropped(ticket) if gap else breaker.succeeded(ticket, float(number))
        assert breaker.state(float(number)) is BreakerState.CLOSED
