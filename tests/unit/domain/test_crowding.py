"""How much company better tiers bear, as their own answers tell."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.crowding import MIN_ANSWERS, REMEMBERED_S, Crowding

PROMISE_MS = 50.0
IN_TIME, LATE = 20.0, 300.0


def crowding(*answers: tuple[int, float], times: int = MIN_ANSWERS) -> Crowding:
    """Answers among so many, each so many times, in the first second."""
    found = Crowding()
    for in_flight, took_ms in answers:
        for _ in range(times):
            found.note(1.0, in_flight, took_ms)
    return found


def most(found: Crowding, now: float = 2.0, own: int = 1) -> int | None:
    return found.most(now, PROMISE_MS, own)


def test_where_nothing_was_answered_nothing_is_known() -> None:
    assert most(Crowding()) is None


def test_what_is_late_in_a_crowd_is_tried_in_half_of_it() -> None:
    assert most(crowding((32, LATE))) == 16
    assert most(crowding((32, LATE), (16, LATE))) == 8
    assert most(crowding((32, LATE), (16, LATE), (8, IN_TIME))) == 8
    # As many as 17 are of the class of 32.
    assert most(crowding((17, LATE))) == 16


def test_what_is_in_time_is_tried_among_twice_as_many() -> None:
    assert most(crowding((1, IN_TIME), times=1)) == 2
    assert most(crowding((1, IN_TIME), (3, IN_TIME), times=1)) == 8


def test_a_few_late_answers_are_no_crowd() -> None:
    found = crowding((8, LATE), times=MIN_ANSWERS - 1)
    assert most(found) == 16
    for _ in range(3 * MIN_ANSWERS):
        found.note(1.0, 8, IN_TIME)
    assert most(found) == 16
    for _ in range(MIN_ANSWERS):
        found.note(1.0, 8, LATE)
    assert most(found) == 4


def test_a_promise_that_is_not_kept_alone_limits_nobody() -> None:
    assert most(crowding((1, LATE), (8, LATE))) is None
    # Kept now and then, it is not to be made worse.
    sometimes = crowding((1, LATE), (1, IN_TIME), (1, IN_TIME), (8, LATE))
    assert most(sometimes) == 4


def test_who_is_never_alone_is_judged_among_its_own() -> None:
    found = crowding((2, LATE), (8, LATE))
    assert most(found, own=1) == 1
    assert most(found, own=2) is None


def test_what_was_too_much_is_tried_again_after_a_while() -> None:
    found = crowding((2, LATE))
    found.note(REMEMBERED_S, 1, IN_TIME)

    assert most(found, now=REMEMBERED_S) == 1
    assert most(found, now=REMEMBERED_S + 1) == 2


@given(
    answers=st.lists(
        st.tuples(st.integers(1, 64), st.sampled_from((IN_TIME, LATE))), min_size=1, max_size=200
    ),
    bears=st.integers(1, 64),
)
def test_the_limit_settles_at_what_is_borne(answers: list[tuple[int, float]], bears: int) -> None:
    """Whatever was seen before: answers are late among more than it bears, and in time else."""
    found = Crowding()
    for at, (in_flight, took_ms) in enumerate(answers):
        found.note(at / 1000, in_flight, took_ms)
    now = REMEMBERED_S + 1
    for step in range(40 * MIN_ANSWERS):
        in_flight = min(64, most(found, now) or 64)
        found.note(now, in_flight, IN_TIME if in_flight <= bears else LATE)
        now += 0.01 * step / MIN_ANSWERS

    settled = most(found, now)

    assert settled is not None
    assert settled <= bears < 2 * settled or (bears == 64 and settled >= 64)
