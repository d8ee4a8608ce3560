"""Designs through the same day: nothing is lost or made up, and what is paid for adds up."""

from __future__ import annotations

import random
from functools import cache

import pytest

from bench.simulator.events import Events
from bench.simulator.fleet import kind
from bench.simulator.mixed_day import (
    ABSENT,
    DAY_S,
    DESIGNS,
    END_S,
    LOADS,
    Design,
    Setting,
    run,
    traffics,
)
from bench.simulator.peers import BetterOfTwo, Knative, RayServe, RoundRobin, least_outstanding
from bench.simulator.pools import Pools
from bench.simulator.report import Report
from bench.simulator.workload import mixed
from synapse.domain.job import SlaTier
from synapse.domain.price_list import ECS_FEE, USD_HOUR
from synapse.domain.reference import DEPLOYABLE, INSTANCE

FEW = [
    design
    for design in DESIGNS
    if not design.name.startswith(("Synapse, gpu alone", "Ray", "round"))
]


@cache
def day_of(design: Design) -> Report:
    """A day of low load, which takes a second to simulate."""
    return run(design, LOADS["low"], seed=5)


@pytest.mark.parametrize("design", FEW, ids=lambda design: design.name)
def test_every_request_ends_once_and_every_machine_is_paid(design: Design) -> None:
    report = day_of(design)

    asked = mixed(traffics(LOADS["low"]), DAY_S, seed=5)
    assert report.requests == len(asked)
    for tier in report.tiers.values():
        assert tier.delivered + tier.refused + tier.expired == tier.requests
        assert 0 <= tier.kept <= tier.delivered / tier.requests
    if not design.pools:
        return
    assert set(report.pools) == set(design.pools)
    for name, usage in report.pools.items():
        assert usage.busy_s <= usage.paid_s
        # Ours are managed by ECS, which has its share; peers run theirs themselves.
        per_hour = USD_HOUR[INSTANCE[name]] * (ECS_FEE if design.build is Setting.ours else 1)
        assert usage.usd == pytest.approx(usage.paid_s / 3600 * per_hour)


def test_what_the_template_cannot_deploy_is_said_in_the_designs_name() -> None:
    ours = [design for design in DESIGNS if design.build is Setting.ours]

    assert not ours[0].name.startswith(ABSENT)
    for design in ours:
        assert design.name.startswith(ABSENT) == bool(set(design.pools) - set(DEPLOYABLE))


def test_who_knows_when_work_comes_has_its_machine_up_by_then() -> None:
    cold, warm = map(day_of, DESIGNS[:2])

    assert warm.kept > cold.kept
    assert warm.tiers[SlaTier.SILVER].p99_ms < 1000 < cold.tiers[SlaTier.SILVER].p99_ms


def test_no_machine_is_kept_for_texts_once_one_is_up_that_has_time_for_them() -> None:
    [design] = [each for each in DESIGNS if each.name == f"{ABSENT}cpu (embed) + gpu + neuron"]

    report = day_of(design)

    # Its start, the accelerator's, and its idle time; the day has 5,400 s of requests.
    assert 0 < report.pools["cpu"].paid_s < 1000
    assert report.tiers[SlaTier.GOLD].kept > 0.98


def test_a_machine_that_is_always_on_is_paid_all_day() -> None:
    [design] = [design for design in DESIGNS if design.name == "always on, gpu"]

    report = day_of(design)

    assert report.pools["gpu"].paid_s == pytest.approx(END_S)


@pytest.mark.parametrize("load", LOADS)
def test_as_much_comes_as_the_load_says(load: str) -> None:
    [embed, rerank] = [
        sum(each.per_s for each in traffics(LOADS[load]) if each.model == model)
        for model in ("embed", "rerank-64")
    ]

    assert embed == rerank == pytest.approx(LOADS[load].per_s)


def test_ray_serve_waits_half_a_minute_to_grow_and_ten_minutes_to_shrink() -> None:
    scaler, have, sizes = RayServe(most=10), 1, []
    for second in range(0, 1400, 2):
        have = scaler.wanted(second, 8 if second < 200 else 0, have)
        sizes.append(have)

    assert sizes[:15] == [1] * 15
    assert sizes[16] == 4
    assert set(sizes[16:400]) == {4}
    assert sizes[-1] == 1


def test_knative_grows_at_once_in_a_panic_and_shrinks_when_the_minute_is_over() -> None:
    scaler, have, sizes = Knative(most=10), 1, []
    for second in range(0, 400, 2):
        have = scaler.wanted(second, 20 if 100 <= second < 110 else 0, have)
        sizes.append(have)

    assert sizes[49] == 1
    assert max(sizes[50:55]) == 10
    assert sizes[75] == 10
    assert sizes[-1] == 1


def test_machines_take_turns_or_the_less_busy_one_is_asked() -> None:
    events = Events()
    pools = Pools(events, random.Random(1), [kind("gpu")])
    pools.resize(pools.kinds[0], 3, at_once=True)
    units = pools.up("gpu")
    units[0].machine.take(1.0, 0, lambda: None)
    units[2].machine.take(1.0, 0, lambda: None)
    turns, better = RoundRobin(), BetterOfTwo(random.Random(1))

    assert [units.index(turns(units)) for _ in range(4)] == [1, 2, 0, 1]
    assert least_outstanding(units) is units[1]
    asked = [units.index(better(units)) for _ in range(300)]
    # Two of the three pairs have the idle one.
    assert asked.count(1) == pytest.approx(200, abs=30)
