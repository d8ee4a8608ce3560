"""Erlang's formula, and how many workers a promise needs by it."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.simulator.events import Events
from bench.simulator.machine import Machine, Pace
from synapse.domain.staffing import (
    LATE_SHARE,
    MOST_USE,
    bearable,
    crowded,
    erlang_c,
    workers_for,
)

loads = st.floats(0.0, 30.0)
crowds = st.tuples(st.integers(1, 16), st.integers(0, 32)).map(lambda c: (c[0], c[0] + c[1]))


def test_the_formula_has_the_values_that_its_tables_have() -> None:
    # M/M/1 waits with the probability of its use; the others are of Erlang's tables.
    assert erlang_c(1, 0.6) == pytest.approx(0.6)
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert erlang_c(5, 4.0) == pytest.approx(0.5541, abs=1e-4)
    assert erlang_c(10, 8.0) == pytest.approx(0.4092, abs=1e-4)


def test_servers_that_never_end_keep_everybody_waiting_and_idle_ones_nobody() -> None:
    assert erlang_c(3, 3.0) == erlang_c(3, 4.0) == 1.0
    assert erlang_c(3, 0.0) == 0.0


@given(st.integers(1, 40), st.floats(0.0, 0.99))
def test_one_server_more_never_makes_anybody_wait(servers: int, use: float) -> None:
    load = use * servers

    assert 0 <= erlang_c(servers + 1, load) <= erlang_c(servers, load) + 1e-12


@given(loads, crowds)
def test_so_many_whole_workers_keep_the_promise_and_are_not_too_full(
    load: float, crowd: tuple[int, int]
) -> None:
    whole = max(1, math.ceil(workers_for(load, *crowd) - 1e-9))

    assert crowded(whole, load, *crowd) <= LATE_SHARE + 1e-6
    assert load <= MOST_USE * whole + 1e-6


@given(loads, crowds)
def test_one_whole_worker_less_would_not_do(load: float, crowd: tuple[int, int]) -> None:
    fewer = math.ceil(workers_for(load, *crowd)) - 1

    if fewer >= 1:
        assert bearable(fewer, *crowd) <= load + 1e-9


@given(loads, loads, crowds)
def test_more_load_never_needs_fewer_workers(
    load: float, more: float, crowd: tuple[int, int]
) -> None:
    assert workers_for(load, *crowd) <= workers_for(load + more, *crowd) + 1e-9


@given(loads, crowds)
def test_a_promise_that_bears_more_company_never_needs_more_workers(
    load: float, crowd: tuple[int, int]
) -> None:
    side_by_side, most = crowd

    assert workers_for(load, side_by_side, most + 1) <= workers_for(load, *crowd) + 1e-3


def test_nothing_to_do_needs_nobody() -> None:
    assert workers_for(0.0, 1, 2) == 0.0


def test_a_promise_that_bears_no_company_leaves_more_room_than_one_that_bears_much() -> None:
    assert bearable(1, 1, 1) == pytest.approx(0.05, abs=1e-3)
    assert bearable(1, 1, 2) == pytest.approx(math.sqrt(0.05), abs=1e-3)
    assert bearable(1, 8, 16) == MOST_USE
    assert bearable(20, 1, 1) / 20 > 5 * bearable(1, 1, 1)


@pytest.mark.parametrize(("workers", "most"), [(1, 2), (2, 2), (3, 3)])
def test_machines_that_share_their_items_are_as_crowded_as_it_says(workers: int, most: int) -> None:
    """Whatever the distribution of sizes: here all items are of one size."""
    events, chance = Events(), random.Random(5)
    machines = [Machine(events, Pace(1000)) for _ in range(workers)]
    per_s, items, found = bearable(workers, 1, most), 20_000, 0

    def come(left: int) -> None:
        nonlocal found
        machine = min(machines, key=lambda each: each.load)
        found += machine.load >= most
        machine.take(1.0, 0, lambda: None)
        if left > 1:
            events.after(chance.expovariate(per_s), lambda: come(left - 1))

    come(items)
    events.run(math.inf)

    # The least busy machine is not always the one that is done first.
    assert found / items == pytest.approx(crowded(workers, per_s, 1, most), abs=0.02)
