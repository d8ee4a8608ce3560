"""How many workers a pool should have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from synapse.domain.job import SlaTier
from synapse.domain.load import PoolLoad
from synapse.domain.pool import Pool
from synapse.domain.scaling import (
    Memory,
    PoolState,
    ScalingDecision,
    ScalingPolicy,
    decide,
    is_stuck,
)
from synapse.domain.staffing import MOST_USE

NOW = 1_000_000.0
SILVER, BRONZE = SlaTier.SILVER, SlaTier.BRONZE
POLICY = ScalingPolicy()
POOL = Pool("cpu", "cpu", min_workers=0, max_workers=10, idle_after_s=120.0, startup_s=10.0)
LONG_AGO = Memory(last_work_at=NOW, changed_at=NOW - 3600.0)


def a_load(workers: float = 0.0, **changes: Any) -> PoolLoad:
    """What keeps so many workers busy, as steady arrivals of which some are in flight."""
    fields: dict[str, Any] = {"in_flight": 1, "last_at": NOW} if workers else {}
    return PoolLoad(busy={SILVER: workers * MOST_USE}, **{**fields, **changes})


def a_state(workers: float = 0.0, **changes: Any) -> PoolState:
    """A pool whose wanted workers are all up, under a load of so many."""
    ready = changes.get("ready", changes.get("desired", 0))
    fields: dict[str, Any] = {
        "pool": POOL,
        "desired": ready,
        "ready": ready,
        "starting": 0,
        "warm": 0,
        "load": a_load(workers),
        "startup_s": 10.0,
    }
    return PoolState(**{**fields, **changes})


def decided(state: PoolState, memory: Memory = LONG_AGO, now: float = NOW) -> ScalingDecision:
    return decide(state, memory, now, POLICY)[0]


def needs(*kept: tuple[float, int]) -> Memory:
    return replace(LONG_AGO, needs=kept)


def test_more_are_started_at_once_though_others_are_on_the_way() -> None:
    just_changed = replace(LONG_AGO, changed_at=NOW)

    decision = decided(a_state(4.5, desired=2, ready=1, starting=1), just_changed)

    assert decision.desired == 5
    assert decision.reason.startswith("needs 4.50 workers: 4.50 for arrivals")


def test_the_first_one_is_started_for_a_single_item() -> None:
    waiting = PoolLoad(backlog_s={BRONZE: 0.001}, waiting=1)

    assert decided(a_state(load=waiting)).desired == 1


def test_arrivals_that_another_pool_still_answers_have_a_worker_started() -> None:
    # The other one is about to go: who is next would wait for a start.
    elsewhere = PoolLoad(busy={SILVER: 0.01}, last_at=NOW)

    assert decided(a_state(desired=0, load=elsewhere)).desired == 1


def test_work_of_unknown_size_gets_one_worker_until_it_was_measured() -> None:
    decision = decided(a_state(load=PoolLoad(waiting=5000, is_unmeasured=True)))

    assert decision.desired == 1
    assert "unknown size" in decision.reason


def test_a_pool_never_has_more_than_its_most() -> None:
    decision = decided(a_state(99.0, desired=3))

    assert decision.desired == 10
    assert decision.reason.endswith("(its most)")


def test_a_little_more_than_a_worker_can_do_starts_no_second_one() -> None:
    assert decided(a_state(2.09, desired=2)).desired == 2
    assert decided(a_state(2.11, desired=2)).desired == 3


def test_a_worker_is_taken_away_where_the_others_are_enough() -> None:
    assert decided(a_state(2.01, desired=3)).desired == 3
    assert decided(a_state(1.99, desired=3)).desired == 2


def test_the_highest_need_of_the_stable_window_is_what_is_kept() -> None:
    assert decided(a_state(1.0, desired=6), needs((NOW - 59, 6))).desired == 6
    assert decided(a_state(1.0, desired=6), needs((NOW - 59, 4))).desired == 4
    assert decided(a_state(1.0, desired=6), needs((NOW - 61, 6))).desired == 3


def test_no_more_than_half_of_them_go_at_a_time() -> None:
    assert decided(a_state(0.5, desired=9)).desired == 5


def test_none_goes_while_one_is_on_its_way() -> None:
    decision = decided(a_state(0.5, desired=4, ready=3, starting=1))

    assert decision.desired == 4
    assert decision.reason == "fewer would do, but 1 on the way"


def test_none_goes_right_after_a_change() -> None:
    memory = replace(LONG_AGO, changed_at=NOW - 29.0)

    assert decided(a_state(0.5, desired=4), memory).desired == 4
    assert decided(a_state(0.5, desired=4), memory, NOW + 1.0).desired == 2


def test_none_goes_while_a_backlog_is_being_cleared() -> None:
    # 100 s of work: one worker would clear it within bronze's 300 s.
    backlog = PoolLoad(backlog_s={BRONZE: 100.0}, waiting=50, in_flight=4)

    decision = decided(a_state(desired=4, load=backlog))

    assert decision.desired == 4
    assert decision.reason == "fewer would do, but 50 still wait"


def test_a_worker_that_never_comes_up_does_not_keep_the_others_for_ever() -> None:
    idle = Memory(last_work_at=NOW - 3600.0, changed_at=NOW - 3600.0)
    stuck = replace(idle, starting_since=NOW - 600.0)
    on_its_way = replace(idle, starting_since=NOW - 599.0)

    assert decided(a_state(desired=4, ready=3, starting=1), on_its_way).desired == 4
    assert decided(a_state(desired=4, ready=3, starting=1), stuck).desired == 0


def test_the_last_worker_stays_until_there_was_no_work_for_long_enough() -> None:
    worked = replace(LONG_AGO, last_work_at=NOW - 119.0)

    assert decided(a_state(desired=1), worked).desired == 1
    gone = decided(a_state(desired=1), worked, NOW + 1.0)
    assert gone.desired == 0
    assert gone.reason == "no work for 120 s"


def test_an_idle_pool_goes_to_its_floor_at_once() -> None:
    idle = Memory(NOW - 120.0, changed_at=NOW - 5.0, needs=((NOW - 10.0, 9),))

    assert decided(a_state(desired=9), idle).desired == 0
    assert decided(a_state(desired=9, pool=replace(POOL, min_workers=2)), idle).desired == 2


def test_a_request_that_came_and_went_between_two_rounds_counts_as_work() -> None:
    long_idle = replace(LONG_AGO, last_work_at=NOW - 3600.0)

    _, memory = decide(a_state(desired=1, load=PoolLoad(last_at=NOW - 1)), long_idle, NOW, POLICY)

    assert memory.last_work_at == NOW - 1


def test_a_warm_window_keeps_workers_up_without_work() -> None:
    idle = Memory(NOW - 3600.0, NOW - 3600.0)

    opened = decided(a_state(desired=0, warm=2), idle)

    assert opened.desired == 2
    assert opened.reason == "2 to be warm at this time, work or no work"
    assert decided(a_state(desired=2, warm=2), idle).desired == 2
    assert decided(a_state(desired=2, warm=0), idle).desired == 0


def test_answers_that_come_late_get_one_worker_more_if_the_workers_are_busy() -> None:
    late = a_load(1.5, is_late=True)
    hardly_used = a_load(0.5, is_late=True)

    assert decided(a_state(desired=2, load=late)).desired == 3
    assert decided(a_state(desired=3, ready=2, starting=1, load=late)).desired == 3
    assert decided(a_state(desired=1, load=hardly_used)).desired == 1


def test_a_policy_that_would_flap_is_refused() -> None:
    with pytest.raises(ValueError, match="not a usable scaling policy"):
        ScalingPolicy(tolerance=0.5)


pools = st.tuples(st.integers(0, 5), st.integers(0, 20)).map(
    lambda limits: replace(POOL, min_workers=min(limits), max_workers=max(limits))
)
amounts = st.dictionaries(st.sampled_from(SlaTier), st.floats(0, 1000, allow_subnormal=False))


@st.composite
def loads(draw: st.DrawFn) -> PoolLoad:
    backlog: Mapping[SlaTier, float] = draw(amounts)
    return PoolLoad(
        busy=draw(amounts),
        backlog_s=backlog,
        waiting=sum(backlog.values()) and draw(st.integers(1, 1000)),
        in_flight=draw(st.integers(0, 100)),
        is_unmeasured=draw(st.booleans()),
        is_late=draw(st.booleans()),
    )


@st.composite
def states(draw: st.DrawFn) -> PoolState:
    pool = draw(pools)
    desired = draw(st.integers(0, pool.max_workers))
    ready = draw(st.integers(0, desired))
    return PoolState(
        pool,
        desired,
        ready,
        starting=draw(st.integers(0, desired - ready)),
        warm=draw(st.integers(0, pool.max_workers)),
        load=draw(loads()),
        startup_s=draw(st.floats(0.1, 300)),
    )


@st.composite
def memories(draw: st.DrawFn) -> Memory:
    ages = st.floats(0, 1000)
    return Memory(
        NOW - draw(ages), NOW - draw(ages), ((NOW - draw(ages), draw(st.integers(0, 20))),)
    )


@given(states(), memories())
def test_what_is_decided_is_within_the_pools_limits(state: PoolState, memory: Memory) -> None:
    desired = decided(state, memory).desired

    assert min(state.pool.min_workers, state.desired) <= desired <= state.pool.max_workers


@given(states(), memories())
def test_a_pool_with_work_is_never_left_without_workers(state: PoolState, memory: Memory) -> None:
    assume(state.load.has_work and state.pool.max_workers > 0)

    assert decided(state, memory).desired >= 1


@given(states(), memories())
def test_nothing_is_taken_away_while_workers_are_on_their_way(
    state: PoolState, memory: Memory
) -> None:
    assume(state.starting > 0)

    assert decided(state, memory).desired >= state.desired


@given(states(), memories(), st.sampled_from(SlaTier), st.floats(0, 1000), st.floats(0, 1000))
def test_more_demand_never_means_fewer_workers(
    state: PoolState, memory: Memory, tier: SlaTier, arrivals: float, backlog_s: float
) -> None:
    load = state.load
    more = replace(
        load,
        busy={**load.busy, tier: load.busy.get(tier, 0.0) + arrivals},
        backlog_s={**load.backlog_s, tier: load.backlog_s.get(tier, 0.0) + backlog_s},
        waiting=load.waiting + 1,
    )

    assert decided(replace(state, load=more), memory).desired >= decided(state, memory).desired


@settings(deadline=None)
@given(states(), memories(), st.floats(1.0, 30.0))
def test_under_constant_demand_a_pool_settles_and_does_not_flap(
    state: PoolState, memory: Memory, every_s: float
) -> None:
    state = replace(state, load=replace(state.load, is_late=False))
    changes = []
    now = NOW
    for _ in range(int(1000 / every_s)):
        decision, memory = decide(state, memory, now, POLICY)
        if decision.is_change:
            changes.append(decision.desired - decision.was)
        # Everybody is up by the next round.
        state = replace(state, desired=decision.desired, ready=decision.desired, starting=0)
        now += every_s

    growing = [change > 0 for change in changes]
    assert growing == sorted(growing, reverse=True)
    assert growing.count(True) <= 1
    assert not decide(state, memory, now, POLICY)[0].is_change


@settings(deadline=None)
@given(states(), memories(), st.floats(1.0, 60.0))
def test_without_demand_a_pool_comes_to_its_floor(
    state: PoolState, memory: Memory, every_s: float
) -> None:
    state = replace(state, load=PoolLoad(), starting=0)
    now = NOW
    for _ in range(int(POOL.idle_after_s / every_s) + 2):
        decision, memory = decide(state, memory, now, POLICY)
        state = replace(state, desired=decision.desired)
        now += every_s

    assert state.desired == max(state.pool.min_workers, min(state.warm, state.pool.max_workers))


def test_a_clock_that_is_put_back_keeps_no_worker_longer() -> None:
    memory = Memory(NOW, NOW, needs=((NOW, 8),), starting_since=NOW, none_up_since=NOW)
    state, back = a_state(ready=8), NOW - 3600.0

    for second in (0.0, 30.0, 61.0):
        fewer, memory = decide(state, memory, back + second, POLICY)
    none, memory = decide(state, memory, back + 120.0, POLICY)

    assert (fewer.desired, none.desired) == (4, 0)
    assert max(memory.last_work_at, memory.changed_at) <= back + 120.0


def test_a_pool_is_stuck_as_soon_as_ever_after_the_clock_was_put_back() -> None:
    memory, back = replace(LONG_AGO, none_up_since=NOW), NOW - 3600.0
    state = a_state(0.5, desired=1, ready=0, starting=1)

    _, memory = decide(state, memory, back, POLICY)

    assert is_stuck(memory, 10.0, back + 51.0, POLICY)
