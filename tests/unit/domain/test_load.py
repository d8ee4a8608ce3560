"""Where demand falls, and how many workers it keeps busy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.extension import Extension
from synapse.domain.inference import TOKEN_IDS
from synapse.domain.job import SlaTier
from synapse.domain.latency import Quantiles
from synapse.domain.load import (
    FULL_USE,
    ModelDemand,
    PoolLoad,
    TierDemand,
    lately_asked,
    spread_demand,
)
from synapse.domain.pool import Pool
from synapse.domain.prediction import Live
from synapse.domain.profile import Profile
from synapse.domain.routing import PoolView
from synapse.domain.staffing import MOST_USE

GOLD, SILVER, BRONZE = SlaTier.GOLD, SlaTier.SILVER, SlaTier.BRONZE


def a_view(name: str = "cpu", *, pool: Mapping[str, Any] | None = None, **changes: Any) -> PoolView:
    """A pool of up to 8 workers of 4 slots at zero, on which an item takes 20 ms."""
    fields = {"accelerator": "cpu", "min_workers": 0, "max_workers": 8, "price_per_hour_usd": 1.0}
    view: dict[str, Any] = {"slots": 4, "ready": 0, "seconds_per_item": 0.02, **changes}
    return PoolView(Pool(name, **{**fields, **(pool or {})}), **view)


DEAR = {"accelerator": "gpu", "price_per_hour_usd": 20.0}


def asked(tier: SlaTier = SILVER, model: str = "echo", **fields: Any) -> ModelDemand:
    return ModelDemand(model, {tier: TierDemand(**fields)})


def the_load(demand: ModelDemand, *views: PoolView) -> dict[str, PoolLoad]:
    return spread_demand([demand], {demand.model: views})


def test_arrivals_keep_as_many_workers_busy_as_littles_law_says() -> None:
    # 100 a second, 20 ms each: 2 slots of 4 at any moment.
    [load] = the_load(asked(arrivals_per_s=100.0, last_at=1.0), a_view()).values()

    assert load.busy[SILVER] == pytest.approx(0.5)
    assert load.steady() == pytest.approx(0.5 / MOST_USE)
    assert load.last_at == 1.0


def test_bronze_fills_the_room_that_better_tiers_leave() -> None:
    tiers = {SILVER: TierDemand(arrivals_per_s=100.0), BRONZE: TierDemand(arrivals_per_s=30.0)}
    [load] = spread_demand([ModelDemand("echo", tiers)], {"echo": [a_view()]}).values()

    assert load.steady() == pytest.approx(max(0.5 / MOST_USE, 0.65 / FULL_USE))


def test_a_backlog_is_cleared_in_its_tiers_time_but_never_sooner_than_a_worker_starts() -> None:
    # 4,000 items of 5 worker-milliseconds: 20 seconds of one worker.
    quick = a_view(pool={"startup_s": 2.0})
    slow = a_view(pool={"startup_s": 100.0})

    [load] = the_load(asked(SILVER, queued=4000), quick).values()
    [behind_slow] = the_load(asked(SILVER, queued=4000), slow).values()

    assert load.workers(2.0) == pytest.approx(2.0)
    assert behind_slow.workers(100.0) == pytest.approx(0.2)


def test_demand_goes_to_a_pool_that_is_to_be_kept_up_once_a_worker_of_it_is() -> None:
    cheap = a_view("cpu", ready=1)
    due = a_view("gpu", pool=DEAR, kept=1)
    demand = asked(arrivals_per_s=10.0)

    before = the_load(demand, cheap, due)
    after = the_load(demand, cheap, replace(due, ready=1))
    with_none_up = the_load(demand, replace(cheap, ready=0), due)

    assert (sum(before["cpu"].busy.values()) > 0) > (sum(before["gpu"].busy.values()) > 0)
    for found in (after, with_none_up):
        assert sum(found["gpu"].busy.values()) > 0
        assert not found["cpu"].busy


def test_models_of_a_pool_add_up_in_shares_of_its_workers() -> None:
    demands = [asked(arrivals_per_s=100.0), asked(model="embed", arrivals_per_s=100.0)]
    views = {"echo": [a_view()], "embed": [a_view(slots=1)]}

    [load] = spread_demand(demands, views).values()

    assert load.busy[SILVER] == pytest.approx(100 * 0.02 / 4 + 100 * 0.02)


def test_demand_goes_to_the_cheapest_pool_that_meets_the_tier_when_it_is_up() -> None:
    dear = a_view("gpu", pool=DEAR, ready=1)
    cheap = a_view("cpu", ready=0, pool={"startup_s": 60.0})
    slow = a_view("old", seconds_per_item=1.0, pool={"price_per_hour_usd": 0.01})

    loads = the_load(asked(SILVER, queued=10), dear, cheap, slow)

    assert {name: load.waiting for name, load in loads.items()} == {
        "gpu": 0.0,
        "cpu": 10.0,
        "old": 0.0,
    }


def test_what_is_more_than_a_pool_can_do_falls_to_the_next() -> None:
    cheap = a_view("cpu", pool={"max_workers": 2})
    dear = a_view("gpu", pool=DEAR)
    # 5 workers' worth at full use.
    loads = the_load(asked(BRONZE, arrivals_per_s=5 * FULL_USE / 0.005), cheap, dear)

    assert loads["cpu"].steady() == pytest.approx(2.0)
    assert loads["gpu"].steady() == pytest.approx(3.0)


def test_workers_that_are_kept_up_anyway_are_used_before_others_are_paid_for() -> None:
    kept = a_view("gpu", pool=DEAR, ready=1, kept=1)
    cheap = a_view("cpu")

    loads = the_load(asked(BRONZE, arrivals_per_s=3 * FULL_USE / 0.005), kept, cheap)

    assert loads["gpu"].steady() == pytest.approx(1.0)
    assert loads["cpu"].steady() == pytest.approx(2.0)


def test_callers_held_at_a_pool_without_workers_wait_where_workers_are_to_come() -> None:
    dear = a_view("gpu", pool=DEAR, in_flight=30)
    cheap = a_view("cpu")

    loads = the_load(asked(SILVER), dear, cheap)

    assert (loads["gpu"].in_flight, loads["gpu"].waiting) == (0, 0.0)
    assert (loads["cpu"].in_flight, loads["cpu"].waiting) == (0, 30.0)


def test_what_is_in_flight_within_the_slots_is_work_but_waits_for_nothing() -> None:
    [load] = the_load(asked(SILVER), a_view(ready=2, in_flight=10)).values()

    assert (load.in_flight, load.waiting) == (8, 2.0)


def test_a_profile_knows_better_than_slots_what_company_costs() -> None:
    profile = Profile("echo", "1", "cpu", "cpu", base_ms=20.0, company=1.0, items_per_s=50.0)
    view = a_view(profile=profile)

    [load] = the_load(asked(arrivals_per_s=25.0), view).values()

    assert load.busy[SILVER] == pytest.approx(0.5)


def test_answers_are_late_where_an_idle_pool_would_have_met_the_tier() -> None:
    slow = Live(whole=Quantiles(p50=9.0, p95=10.0, p99=10.0, count=500))
    quick = Profile("echo", "1", "cpu", "cpu", base_ms=20.0, items_per_s=200.0)
    never = Profile("echo", "1", "cpu", "cpu", base_ms=400.0, items_per_s=200.0)

    def is_late(tier: SlaTier, profile: Profile, live: Live) -> bool:
        view = a_view(ready=1, profile=profile, live=live)
        [load] = the_load(asked(tier, arrivals_per_s=1.0), view).values()
        return load.is_late

    assert is_late(SILVER, quick, slow)
    assert not is_late(BRONZE, quick, slow)
    assert not is_late(SILVER, quick, Live())
    assert not is_late(SILVER, never, slow)


def test_nothing_new_falls_to_a_stuck_pool_unless_there_is_no_other() -> None:
    demand = [asked(queued=5)]
    cheap, dear = a_view("cpu"), a_view("gpu", pool=DEAR)

    two = spread_demand(demand, {"echo": [cheap, dear]}, stuck=["cpu"])
    one = spread_demand(demand, {"echo": [cheap]}, stuck=["cpu"])

    assert (two["cpu"].waiting, two["gpu"].waiting) == (0.0, 5.0)
    assert one["cpu"].waiting == 5.0


def test_what_requires_an_extension_falls_to_pools_that_have_it_and_waits_once() -> None:
    vllm = a_view(pool={"extensions": frozenset({Extension.PRIORITY})}, in_flight=3)
    llama = a_view("llama", pool=DEAR)
    tiers = {SILVER: TierDemand(queued=10, arrivals_per_s=10.0)}
    plain = ModelDemand("echo", tiers)
    ids = ModelDemand("echo", tiers, requires=TOKEN_IDS)

    loads = spread_demand([plain, ids], {"echo": [vllm, llama]})

    assert loads["cpu"].waiting == 13  # and those that are held there
    assert loads["llama"].waiting == 10
    assert loads["cpu"].busy == loads["llama"].busy


def test_work_of_unknown_size_is_said_to_be_so() -> None:
    [load] = the_load(asked(queued=5), a_view(seconds_per_item=None)).values()

    assert load.is_unmeasured
    assert load.has_work
    assert load.workers(5.0) == 0


def test_a_pool_that_may_have_no_workers_gets_nothing() -> None:
    loads = the_load(asked(queued=5), a_view("none", pool={"max_workers": 0}), a_view("cpu"))

    assert (loads["none"].waiting, loads["cpu"].waiting) == (0.0, 5.0)


tier_demands = st.builds(
    TierDemand,
    queued=st.integers(0, 10_000),
    arrivals_per_s=st.floats(0, 1000, allow_subnormal=False),
)
demands = st.dictionaries(st.sampled_from(SlaTier), tier_demands, min_size=1)


@given(demands, demands)
def test_nothing_of_the_demand_is_lost_or_counted_twice(
    echo: dict[SlaTier, TierDemand], embed: dict[SlaTier, TierDemand]
) -> None:
    views = [a_view("cpu", pool={"max_workers": 2}), a_view("gpu", pool={**DEAR, "max_workers": 3})]

    loads = spread_demand(
        [ModelDemand("echo", echo), ModelDemand("embed", embed)], {"echo": views, "embed": views}
    ).values()

    both = [*echo.values(), *embed.values()]
    busy = sum(sum(load.busy.values()) for load in loads)
    assert sum(load.waiting for load in loads) == pytest.approx(sum(each.queued for each in both))
    assert busy == pytest.approx(sum(each.arrivals_per_s for each in both) * 0.005)


@given(demands, st.sampled_from(SlaTier), st.integers(0, 1000), st.floats(0, 100))
def test_more_demand_never_needs_fewer_workers(
    tiers: dict[SlaTier, TierDemand], tier: SlaTier, queued: int, arrivals: float
) -> None:
    before = tiers.get(tier, TierDemand())
    more = TierDemand(before.queued + queued, before.arrivals_per_s + arrivals)

    [fewer] = the_load(ModelDemand("echo", tiers), a_view()).values()
    [greater] = the_load(ModelDemand("echo", {**tiers, tier: more}), a_view()).values()

    assert greater.workers(5.0) >= fewer.workers(5.0) - 1e-6


@given(demands, st.sampled_from(SlaTier), *[st.integers(1, 9) for _ in range(3)])
def test_a_tier_counts_for_as_long_as_a_pool_is_kept_for_it_and_no_longer(
    tiers: dict[SlaTier, TierDemand], tier: SlaTier, ago_s: int, idle_s: int, other_s: int
) -> None:
    now = 1e6
    once = TierDemand(last_at=now - ago_s, prompt_tokens=100)
    others = {each: of for each, of in tiers.items() if each is not tier}
    pools = [a_view(pool={"idle_after_s": each}) for each in (idle_s, other_s)]
    views = {"echo": pools}

    [found] = lately_asked([ModelDemand("echo", {**others, tier: once})], views, now)

    expected = {tier: once} if ago_s < max(idle_s, other_s) else {}
    assert found.tiers == {**others, **expected}
