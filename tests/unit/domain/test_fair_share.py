"""Fair shares: high priorities first, in proportion under overload, and none for ever last."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.fair_share import TICKETS, FairShare, Turns
from synapse.domain.job import Priority

ALL = list(Priority)
ROUND = sum(TICKETS.values())
WAITING = st.sets(st.sampled_from(ALL), min_size=1)


def joined(*priorities: Priority) -> FairShare:
    shares = FairShare()
    for priority in priorities:
        shares.joined(priority)
    return shares


def test_under_overload_places_go_by_tickets() -> None:
    shares = joined(*ALL)

    served = Counter(shares.next(ALL) for _ in range(10 * ROUND))

    for priority, tickets in TICKETS.items():
        assert abs(served[priority] - 10 * tickets) <= 1


def test_a_newcomer_of_high_priority_is_next_however_long_the_others_have_been_served() -> None:
    shares = joined(Priority.NORMAL, Priority.LOW)
    for _ in range(1000):
        shares.next([Priority.NORMAL, Priority.LOW])

    shares.joined(Priority.HIGH)

    assert [shares.next(ALL) for _ in range(5)].count(Priority.HIGH) >= 4


def test_a_priority_that_had_no_work_has_saved_up_no_turns() -> None:
    shares = joined(Priority.HIGH)
    for _ in range(10_000):
        shares.next([Priority.HIGH])

    shares.joined(Priority.LOW)

    served = Counter(shares.next([Priority.HIGH, Priority.LOW]) for _ in range(130))
    assert served[Priority.LOW] <= 3


def test_alone_a_priority_gets_every_place() -> None:
    shares = joined(Priority.LOW)

    assert {shares.next([Priority.LOW]) for _ in range(100)} == {Priority.LOW}


@given(st.lists(WAITING, min_size=1, max_size=300))
def test_whoever_waits_all_the_time_is_served_within_a_round_or_two(
    rounds: list[set[Priority]],
) -> None:
    shares = joined(Priority.LOW)
    before: set[Priority] = {Priority.LOW}
    since_served = 0
    for others in rounds:
        waiting = others | {Priority.LOW}
        for priority in waiting - before:
            shares.joined(priority)
        before = waiting
        since_served = 0 if shares.next(waiting) is Priority.LOW else since_served + 1
        assert since_served <= 2 * ROUND


def served(turns: Turns, number: int, cost: float = 1.0) -> list[str]:
    names = []
    for _ in range(number):
        names.append(turns.next())
        turns.charge(names[-1], cost)
    return names


def test_what_came_to_nothing_costs_no_turn() -> None:
    turns = Turns()
    turns.join("a")
    turns.join("b")
    for _ in range(5):
        turns.charge("a", 100)
        turns.charge("a", -100)

    assert sorted(served(turns, 4)) == ["a", "a", "b", "b"]


def test_who_has_left_has_no_turn_and_what_they_have_had_is_remembered() -> None:
    turns = Turns()
    turns.join("a")
    turns.join("b")
    turns.charge("a", 3)
    turns.leave("a")
    assert served(turns, 2) == ["b", "b"]

    turns.join("a")

    assert served(turns, 2) == ["b", "a"]


def test_those_who_come_and_go_leave_nothing_behind() -> None:
    turns = Turns()
    turns.join("stays")
    for number in range(10_000):
        turns.join(f"tenant-{number}")
        turns.charge(f"tenant-{number}", 1)
        turns.leave(f"tenant-{number}")
        if number % 10 == 0:
            served(turns, 1)

    assert len(turns._heap) + len(turns._start) < 400
