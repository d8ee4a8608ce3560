"""Which worker: the least busy, or the one that knows the request's beginning."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.affinity import (
    BUSIER,
    PREFIX_BYTES,
    Option,
    chosen,
    prefix_affinity,
    weight,
)

OPTIONS = st.lists(
    st.builds(
        Option,
        id=st.text("abcdef0123456789", min_size=4, max_size=8),
        rank=st.integers(0, 2),
        outstanding=st.integers(0, 100),
    ),
    min_size=1,
    max_size=16,
    unique_by=lambda option: option.id,
)
AFFINITIES = st.text(min_size=1, max_size=12)


@given(OPTIONS)
def test_without_affinity_the_least_busy_of_the_best_rank_is_taken(options: list[Option]) -> None:
    choice = chosen(options)

    best = min(option.rank for option in options)
    assert choice.rank == best
    assert choice.outstanding == min(o.outstanding for o in options if o.rank == best)


@given(OPTIONS, AFFINITIES, st.integers(0, 32))
def test_an_affinity_never_leads_to_a_worker_much_busier_than_the_mean(
    options: list[Option], affinity: str, never_busy: int
) -> None:
    choice = chosen(options, affinity, never_busy)

    equals = [o for o in options if o.rank == min(o.rank for o in options)]
    mean = (sum(o.outstanding for o in equals) + 1) / len(equals)
    assert choice in equals
    assert choice.outstanding + 1 <= max(never_busy, BUSIER * mean + 1)


@given(OPTIONS, AFFINITIES)
def test_the_order_in_which_workers_are_listed_does_not_matter(
    options: list[Option], affinity: str
) -> None:
    assert chosen(options, affinity) == chosen(options[::-1], affinity)


@given(st.integers(2, 12), AFFINITIES)
def test_when_a_worker_goes_only_its_own_requests_move(workers: int, affinity: str) -> None:
    options = [Option(f"w-{n}", 0, 0) for n in range(workers)]
    before = chosen(options, affinity)

    for gone in options:
        after = chosen([option for option in options if option is not gone], affinity)
        assert after is before or gone is before


def test_affinities_are_spread_over_the_workers() -> None:
    options = [Option(f"w-{n}", 0, 0) for n in range(8)]

    found = Counter(chosen(options, f"session-{n}").id for n in range(4000))

    assert all(400 < count < 600 for count in found.values())


def test_a_worker_with_few_items_keeps_its_sessions_though_others_are_idle() -> None:
    options = [Option("w-1", 0, 0), Option("w-2", 0, 0)]
    near, other = sorted(options, key=lambda o: weight("session", o.id), reverse=True)

    busy = [Option(near.id, 0, 3), other]

    assert chosen(busy, "session", never_busy=8).id == near.id
    assert chosen(busy, "session", never_busy=3).id == other.id


@given(st.text(max_size=3000), st.text(max_size=10))
def test_equal_beginnings_have_the_same_affinity(text: str, end: str) -> None:
    long = text + "x" * PREFIX_BYTES
    assert prefix_affinity(long) == prefix_affinity(long + end)


def test_no_text_has_no_affinity_and_others_have_different_ones() -> None:
    assert prefix_affinity("") == ""
    assert prefix_affinity("You are a poet.") != prefix_affinity("You are a clerk.")
    assert prefix_affinity("\ud800") != ""
