"""A worker that comes and goes: for how long it is paid, and who waits for it."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.from_zero import Cycle, cycle, opening

rates = st.floats(1e-6, 100.0)
spans = st.floats(0.0, 1000.0)


@pytest.mark.parametrize(("per_s", "workers"), [(1.0, 1), (10.0, 1), (80.0, 2)])
def test_who_comes_during_the_start_waits_for_it_and_for_those_before(
    per_s: float, workers: int
) -> None:
    """A line that forms for four minutes, and is worked off one after the other."""
    chance, start_s, work_s = random.Random(1), 240.0, 0.0175
    now, free_at, waited_s, cold = 0.0, start_s, 0.0, 0
    while now < 3600:
        now += chance.expovariate(per_s)
        begins = max(now, free_at)
        free_at = begins + work_s / workers
        cold += now < start_s
        waited_s += begins - now

    found = opening(per_s, start_s, work_s, workers)

    assert found.cold == pytest.approx(cold, rel=0.15)
    assert found.held_s == pytest.approx(waited_s, rel=0.15)


@pytest.mark.parametrize(("per_s", "idle_s", "start_s"), [(0.002, 300, 240), (0.01, 120, 40)])
def test_a_worker_is_up_and_missed_as_often_as_the_formula_says(
    per_s: float, idle_s: float, start_s: float
) -> None:
    chance, now, up_s, starting_s = random.Random(1), 0.0, 0.0, 0.0
    ready_at = gone_at = -math.inf
    requests, cold = 60_000, 0
    for _ in range(requests):
        now += chance.expovariate(per_s)
        if now >= gone_at:
            # It was let go, or never there.
            ready_at = now + start_s
            starting_s += start_s
            up_s += start_s + idle_s
            gone_at = ready_at + idle_s
            cold += 1
            continue
        cold += now < ready_at
        longer_s = max(now, ready_at) + idle_s - gone_at
        up_s += longer_s
        gone_at += longer_s

    found = cycle(per_s, idle_s, start_s)

    assert found.up == pytest.approx(up_s / now, rel=0.02)
    assert found.cold == pytest.approx(cold / requests, rel=0.03)
    assert found.starting == pytest.approx(starting_s / now, rel=0.03)


@given(rates, spans, spans)
def test_shares_of_time_and_of_requests_are_shares(
    per_s: float, idle_s: float, start_s: float
) -> None:
    found = cycle(per_s, idle_s, start_s)

    assert 0 <= found.starting <= found.up <= 1
    assert 0 <= found.cold <= 1


@given(rates, spans, spans, st.floats(1.0, 10.0))
def test_who_waits_longer_before_letting_go_pays_more_and_misses_fewer(
    per_s: float, idle_s: float, start_s: float, times: float
) -> None:
    short, long = cycle(per_s, idle_s, start_s), cycle(per_s, idle_s * times, start_s)

    assert long.up >= short.up - 1e-9
    assert long.cold <= short.cold + 1e-9


def test_nobody_asks_nobody_pays() -> None:
    assert cycle(0.0, 300.0, 240.0) == Cycle(0.0, 0.0, 0.0)
    assert cycle(1000.0, 300.0, 240.0).up == pytest.approx(1.0)
