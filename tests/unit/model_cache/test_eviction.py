"""Which models go when room is needed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from synapse_worker.cache.eviction import Held, Plan, expired, room_for

SHELVES = st.lists(
    st.builds(
        Held,
        key=st.uuids().map(str),
        size_bytes=st.integers(0, 100),
        last_used_at=st.floats(0, 1000),
        in_use=st.booleans(),
        pinned=st.booleans(),
    ),
    max_size=12,
)
SIZES = st.integers(0, 400)


def total(held: list[Held]) -> int:
    return sum(each.size_bytes for each in held)


def left(held: list[Held], plan: Plan) -> list[Held]:
    return [each for each in held if each not in plan.evict]


@given(SHELVES, SIZES, SIZES)
def test_after_making_room_the_budget_holds(held: list[Held], needed: int, budget: int) -> None:
    plan = room_for(needed, held, budget)

    if plan.fits:
        assert total(left(held, plan)) + needed <= budget


@given(SHELVES, SIZES, SIZES)
def test_it_gives_up_only_if_what_must_stay_is_too_much(
    held: list[Held], needed: int, budget: int
) -> None:
    plan = room_for(needed, held, budget)

    staying = total([each for each in held if each.in_use or each.pinned])
    assert plan.short_bytes == max(0, staying + needed - budget)
    assert plan.fits or not plan.evict, "to evict what does not help would be a loss"


@given(SHELVES, SIZES, SIZES)
def test_what_is_in_use_or_pinned_stays(held: list[Held], needed: int, budget: int) -> None:
    plan = room_for(needed, held, budget)

    assert not any(each.in_use or each.pinned for each in plan.evict)


@given(SHELVES, SIZES, SIZES)
def test_the_least_recently_used_go_and_no_more_than_needed(
    held: list[Held], needed: int, budget: int
) -> None:
    plan = room_for(needed, held, budget)

    gone = list(plan.evict)
    assert gone == sorted(gone, key=lambda each: each.last_used_at)
    staying = [h for h in left(held, plan) if not (h.in_use or h.pinned)]
    if gone and staying:
        assert gone[-1].last_used_at <= min(each.last_used_at for each in staying)
    if gone:
        assert total(left(held, plan)) + gone[-1].size_bytes + needed > budget


@given(SHELVES, st.floats(0, 2000), st.floats(0, 2000))
def test_ttl_takes_exactly_what_is_unused_and_older(
    held: list[Held], now: float, ttl_s: float
) -> None:
    gone = expired(held, now, ttl_s)

    for each in held:
        is_due = now - each.last_used_at > ttl_s and not (each.in_use or each.pinned)
        assert (each in gone) == is_due


def test_without_a_ttl_nothing_expires() -> None:
    assert expired([Held("old", 1, last_used_at=0)], now=1e9, ttl_s=None) == []
