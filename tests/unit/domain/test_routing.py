"""The router: the cheapest pool that is fast enough, and why."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.candidate import Candidate
from synapse.domain.extension import Extension
from synapse.domain.inference import TOKEN_IDS
from synapse.domain.job import SlaTier
from synapse.domain.latency import Quantiles
from synapse.domain.pool import FALLBACK_ORDER, Pool
from synapse.domain.prediction import PROFILE_WEIGHT, Live
from synapse.domain.profile import Profile
from synapse.domain.routing import TIER_P99_MS, Decision, Need, PoolView, route

GOLD, SILVER, BRONZE = SlaTier.GOLD, SlaTier.SILVER, SlaTier.BRONZE


def a_profile(pool: str = "cpu", base_ms: float = 20.0, **changes: Any) -> Profile:
    fields: dict[str, Any] = {"base_ms": base_ms, **changes}
    return Profile("echo", "1", pool, "cpu", **fields)


def a_view(name: str = "cpu", **changes: Any) -> PoolView:
    """A pool with one worker of 8 slots that is up, at a dollar an hour."""
    pool_fields: dict[str, Any] = {
        key: changes.pop(key)
        for key in (
            *("min_workers", "max_workers", "startup_s", "idle_after_s", "accelerator"),
            *("extensions", "paid_by_call"),
        )
        if key in changes
    }
    usd = changes.pop("usd", 1.0)
    ms = changes.pop("ms", 20.0)
    fields: dict[str, Any] = {"accelerator": "cpu", "min_workers": 0, "max_workers": 4}
    fields |= pool_fields
    pool = Pool(name, price_per_hour_usd=usd, **fields)
    profile = None if ms is None else a_profile(name, ms)
    view: dict[str, Any] = {"slots": 8, "ready": 1, "profile": profile, **changes}
    return PoolView(pool, **view)


def names(decision: Decision) -> list[str]:
    return [pool.name for pool in decision.pools]


QUANTILES = st.builds(
    lambda count, p50, more, most: Quantiles(count, p50, p50 + more, p50 + more + most),
    st.integers(1, 256),
    *[st.floats(0.01, 20.0)] * 3,
)
LIVES = st.builds(Live, st.none() | QUANTILES, st.none() | QUANTILES)
PROFILES = st.builds(
    Profile,
    *[st.just("m"), st.just("1"), st.just("p"), st.just("cpu")],
    base_ms=st.floats(0.1, 1000.0),
    prompt_token_ms=st.floats(0.0, 1.0),
    output_token_ms=st.floats(0.0, 50.0),
    company=st.floats(0.0, 2.0),
    spread=st.floats(1.0, 5.0),
    best_batch=st.integers(1, 64),
    saturates_at=st.integers(0, 64),
    first_spread=st.none() | st.floats(1.0, 5.0),
    first_company=st.none() | st.floats(0.0, 2.0),
)


@st.composite
def pool_views(draw: st.DrawFn, name: str = "p") -> PoolView:
    most = draw(st.integers(0, 5))
    pool = Pool(
        name,
        draw(st.sampled_from([*FALLBACK_ORDER, "tpu"])),
        price_per_hour_usd=draw(st.just(0.0) | st.floats(0.01, 50.0)),
        min_workers=draw(st.integers(0, most)),
        max_workers=most,
        startup_s=draw(st.floats(0.0, 300.0)),
    )
    return PoolView(
        pool,
        slots=draw(st.integers(1, 64)),
        ready=draw(st.integers(0, 5)),
        starting=draw(st.integers(0, 2)),
        starts_in_s=draw(st.none() | st.floats(0.0, 300.0)),
        kept=pool.min_workers,
        in_flight=draw(st.integers(0, 500)),
        queued=draw(st.integers(0, 500)),
        profile=draw(st.none() | PROFILES),
        seconds_per_item=draw(st.none() | st.floats(0.0, 10.0)),
        live=draw(LIVES),
        is_open=draw(st.booleans()),
        room=draw(st.none() | st.integers(-2, 20)),
    )


VIEWS = st.lists(st.integers(), min_size=0, max_size=5).flatmap(
    lambda each: st.tuples(*[pool_views(f"p{at}") for at in range(len(each))])
)
NEEDS = st.builds(
    Need,
    st.sampled_from(SlaTier),
    items=st.integers(1, 64),
    prompt_tokens=st.integers(0, 8000),
    output_tokens=st.integers(0, 2000),
    deadline_s=st.none() | st.floats(0.001, 1000.0),
    first_token_only=st.booleans(),
)


def only(need: Need, view: PoolView) -> Candidate:
    [candidate] = route(need, [view]).candidates
    return candidate


@given(NEEDS, VIEWS)
def test_every_pool_is_tried_once(need: Need, views: tuple[PoolView, ...]) -> None:
    decision = route(need, views)

    assert sorted(names(decision)) == sorted(view.pool.name for view in views)
    assert [c.pool for c in decision.candidates] == [view.pool for view in views]


@given(NEEDS, VIEWS)
def test_whoever_fits_comes_before_whoever_does_not(
    need: Need, views: tuple[PoolView, ...]
) -> None:
    decision = route(need, views)

    fits = [decision.of(name).fits for name in names(decision)]
    assert fits == sorted(fits, reverse=True)
    assert bool(decision.fallback) is (bool(views) and not any(fits))


@given(NEEDS, VIEWS)
def test_the_first_choice_is_the_cheapest_that_fits(
    need: Need, views: tuple[PoolView, ...]
) -> None:
    decision = route(need, views)

    fitting = [c for c in decision.candidates if c.fits]
    if fitting:
        first = decision.of(decision.pools[0].name)
        rivals = [c for c in fitting if not c.must_yield] or fitting
        assert first in rivals
        assert _usd(first) == min(_usd(c) for c in rivals)


def test_a_worker_that_is_up_for_others_and_idle_costs_nothing_more() -> None:
    cheap, dear = a_view("cpu", usd=1.0), a_view("gpu", usd=9.0)

    assert names(route(Need(SILVER), [cheap, dear])) == ["cpu", "gpu"]
    decision = route(Need(SILVER), [cheap, replace(dear, is_spare=True)])
    assert names(decision) == ["gpu", "cpu"]
    assert decision.of("gpu").usd_per_item == 0


def test_what_costs_nothing_more_but_breaks_the_promise_is_not_taken() -> None:
    slow = a_view("gpu", usd=9.0, ms=400.0, is_spare=True)

    assert names(route(Need(SILVER), [a_view("cpu"), slow])) == ["cpu", "gpu"]


@given(NEEDS, VIEWS)
def test_where_none_fits_those_that_are_well_come_first(
    need: Need, views: tuple[PoolView, ...]
) -> None:
    decision = route(need, views)

    if decision.fallback:
        is_open = [decision.of(name).is_open for name in names(decision)]
        able = [view.pool.name for view in views if view.ready or view.pool.max_workers]
        flags = [flag for flag, name in zip(is_open, names(decision), strict=True) if name in able]
        assert flags == sorted(flags)


@given(NEEDS, pool_views(), st.integers(0, 100), st.integers(0, 100))
def test_more_load_never_makes_a_pool_fit(
    need: Need, view: PoolView, in_flight: int, queued: int
) -> None:
    before, busier = (
        only(need, view),
        replace(view, in_flight=view.in_flight + in_flight, queued=view.queued + queued),
    )
    after = only(need, busier)

    assert before.fits or not after.fits
    assert _ms(after) >= _ms(before) * (1 - 1e-9)


@given(NEEDS, pool_views(), st.integers(1, 5))
def test_more_workers_never_make_a_pool_slower(need: Need, view: PoolView, more: int) -> None:
    before, after = only(need, view), only(need, replace(view, ready=view.ready + more))

    assert _ms(after) <= _ms(before) * (1 + 1e-9)


@given(NEEDS, pool_views(), st.floats(1.0, 100.0))
def test_slower_answers_lately_never_make_a_pool_fit(
    need: Need, view: PoolView, times: float
) -> None:
    def slowed(quantiles: Quantiles | None) -> Quantiles | None:
        if quantiles is None:
            return None
        return replace(quantiles, p95=quantiles.p95 * times, p99=quantiles.p99 * times)

    slower = replace(view, live=Live(slowed(view.live.whole), slowed(view.live.first)))

    assert only(need, view).fits or not only(need, slower).fits


@given(NEEDS, pool_views())
def test_who_meets_a_tier_meets_the_ones_below(need: Need, view: PoolView) -> None:
    gold, silver, bronze = (only(replace(need, tier=tier), view).fits for tier in SlaTier)

    assert gold <= silver <= bronze


@given(NEEDS, pool_views(), st.floats(0.1, 1.0))
def test_less_time_never_makes_a_pool_fit(need: Need, view: PoolView, part: float) -> None:
    shorter = replace(need, deadline_s=(need.deadline_s or 1e6) * part)

    assert only(need, view).fits or not only(shorter, view).fits


@given(NEEDS, pool_views())
def test_what_fits_keeps_its_promise_and_its_deadline(need: Need, view: PoolView) -> None:
    candidate = only(need, view)
    prediction = candidate.prediction

    if candidate.fits and prediction is not None:
        promised = prediction.first_p99_ms if need.first_token_only else prediction.whole_p99_ms
        assert promised <= TIER_P99_MS[need.tier]
        assert need.deadline_s is None or prediction.whole_p99_ms <= need.deadline_s * 1000
        assert prediction.first_p99_ms <= prediction.whole_p99_ms
        assert prediction.wait_ms >= prediction.start_ms >= 0
    assert candidate.reason


def _usd(candidate: Candidate) -> float:
    return math.inf if candidate.usd_per_item is None else candidate.usd_per_item


def _ms(candidate: Candidate) -> float:
    return 0.0 if candidate.p99_ms is None else candidate.p99_ms


def test_each_tier_takes_the_cheapest_pool_that_is_fast_enough_for_it() -> None:
    views = [
        a_view("gpu", usd=5.0, ms=10.0),
        a_view("mid", usd=2.0, ms=100.0),
        a_view("cpu", usd=0.1, ms=800.0),
    ]

    assert names(route(Need(GOLD), views))[0] == "gpu"
    assert names(route(Need(SILVER), views))[0] == "gpu"  # 5 $/h × 10 ms < 2 $/h × 100 ms
    dearer = [replace(views[0], pool=replace(views[0].pool, price_per_hour_usd=50.0)), *views[1:]]
    assert names(route(Need(SILVER), dearer))[0] == "mid"
    assert names(route(Need(BRONZE), dearer))[0] == "cpu"


def test_a_deadline_counts_for_bronze_too() -> None:
    views = [a_view("gpu", usd=50.0, ms=10.0), a_view("cpu", usd=0.1, ms=800.0)]

    assert names(route(Need(BRONZE), views))[0] == "cpu"
    assert names(route(Need(BRONZE, deadline_s=0.5), views))[0] == "gpu"


def test_the_tier_of_a_generation_is_about_its_first_token_and_the_deadline_about_all() -> None:
    view = a_view(ms=None, profile=a_profile(output_token_ms=10.0))
    need = Need(GOLD, output_tokens=100, first_token_only=True)

    assert only(need, view).fits
    assert not only(replace(need, first_token_only=False), view).fits
    assert not only(replace(need, deadline_s=0.5), view).fits


def test_a_queue_moves_a_request_on_to_a_dearer_pool() -> None:
    cheap, dear = a_view("cheap", ms=40.0), a_view("dear", usd=9.0)

    assert names(route(Need(GOLD), [cheap, dear])) == ["cheap", "dear"]
    assert names(route(Need(GOLD), [replace(cheap, in_flight=20), dear])) == ["dear", "cheap"]


def test_littles_law_tells_the_wait() -> None:
    view = a_view(ms=40.0, in_flight=8 + 16)

    prediction = only(Need(SILVER), view).prediction

    # 17 items too many for the slots, of 40 ms each, eight side by side.
    assert prediction is not None
    assert prediction.wait_ms == pytest.approx(17 * 40.0 / 8)
    assert prediction.whole_p99_ms == pytest.approx(17 * 40.0 / 8 + 40.0)


def test_idle_workers_that_are_kept_up_anyway_cost_bronze_nothing() -> None:
    kept = a_view("gpu", usd=20.0, ms=10.0, min_workers=1, kept=1)
    busy = a_view("cpu", usd=0.1, ms=50.0)

    assert names(route(Need(BRONZE), [busy, kept]))[0] == "gpu"
    # Once they are full another worker would be needed, and that is not for nothing.
    assert names(route(Need(BRONZE), [busy, replace(kept, in_flight=8)]))[0] == "cpu"


def test_of_two_pools_that_are_kept_up_the_cheaper_kind_is_used() -> None:
    gpu = a_view("gpu", usd=20.0, ms=10.0, min_workers=1, kept=1)
    cpu = a_view("cpu", usd=0.1, ms=20.0, min_workers=1, kept=1)

    assert names(route(Need(GOLD), [gpu, cpu]))[0] == "cpu"


def test_what_is_paid_by_the_call_costs_as_much_where_it_is_kept_warm() -> None:
    function = a_view("cpu", usd=3.6, paid_by_call=True)

    assert _usd(only(Need(BRONZE), replace(function, kept=1))) == _usd(only(Need(BRONZE), function))


def test_what_is_paid_by_the_call_is_shared_only_by_those_who_come_together() -> None:
    profile = a_profile("cpu", 20.0, best_batch=8)
    function = a_view("cpu", usd=3.6, paid_by_call=True, profile=profile)
    timed = a_view("cpu", usd=3.6, ms=None, seconds_per_item=0.02, paid_by_call=True)

    for view in (function, timed):
        assert _usd(only(Need(BRONZE), view)) == pytest.approx(0.001 * 0.02, rel=0.1)
        assert _usd(only(Need(BRONZE, items=4), view)) == pytest.approx(0.001 * 0.02 / 4, rel=0.1)
        assert _usd(only(Need(BRONZE, items=99), view)) == pytest.approx(0.001 * 0.02 / 8, rel=0.1)


def test_one_request_does_not_start_a_worker_that_many_would() -> None:
    cold = a_view("cheap", usd=1.0, ready=0, idle_after_s=300.0, startup_s=30.0)
    warm = a_view("dear", usd=10.0)

    assert names(route(Need(BRONZE), [cold, warm]))[0] == "dear"
    # 10 $/h less 1 $/h for 20 ms each has to pay for 330 s at 1 $/h.
    queue = replace(cold, queued=2000)
    assert names(route(Need(BRONZE), [queue, warm]))[0] == "cheap"


def test_a_worker_that_starts_already_is_paid_for_and_answers_sooner() -> None:
    cold = a_view("cpu", ready=0, startup_s=60.0)
    starting = replace(cold, starting=1, starts_in_s=5.0)

    first, second = only(Need(BRONZE), cold), only(Need(BRONZE), starting)

    assert first.prediction is not None
    assert second.prediction is not None
    assert first.prediction.start_ms == 60_000
    assert second.prediction.start_ms == 5_000
    assert second.usd_per_item == second.busy_usd_per_item
    assert _usd(second) < _usd(first)


def test_bronze_goes_last_where_free_slots_are_kept_for_better_tiers() -> None:
    cheap, dear = a_view("cheap", room=0), a_view("dear", usd=9.0, room=4)

    assert names(route(Need(BRONZE), [cheap, dear])) == ["dear", "cheap"]
    assert names(route(Need(BRONZE, items=5), [cheap, dear])) == ["cheap", "dear"]
    assert names(route(Need(SILVER), [cheap, dear])) == ["cheap", "dear"]
    assert route(Need(BRONZE), [cheap]).fallback == ""


def test_where_none_fits_the_fastest_kind_comes_first_and_it_says_so() -> None:
    views = [
        a_view("cpu", ms=400.0),
        a_view("neuron", ms=300.0, accelerator="neuron"),
        a_view("gpu", ms=200.0, accelerator="gpu"),
    ]

    decision = route(Need(GOLD), views)

    assert names(decision) == ["gpu", "neuron", "cpu"]
    assert decision.fallback == (
        "no pool meets tier gold: cpu: predicted p99 400 ms is more than 50 ms; "
        "neuron: predicted p99 300 ms is more than 50 ms; "
        "gpu: predicted p99 200 ms is more than 50 ms"
    )


def test_falling_back_health_comes_before_kind_and_a_worker_that_is_up_before_one_to_start() -> (
    None
):
    ill = a_view("gpu", accelerator="gpu", is_open=True)
    cold = a_view("neuron", accelerator="neuron", ready=0)
    slow = a_view("cpu", ms=400.0)

    assert names(route(Need(GOLD), [ill, cold, slow])) == ["cpu", "neuron", "gpu"]


def test_work_goes_to_a_pool_in_doubt_only_where_none_is_well() -> None:
    well, cold = a_view("cpu"), a_view("neuron", ready=0)
    broken = a_view("tpu", is_open=True)
    doubtful = a_view("gpu", is_open=True, is_doubtful=True)

    def takers(*views: PoolView) -> list[str]:
        return [each.pool.name for each in route(Need(GOLD), views).takers()]

    assert takers(doubtful, cold, broken, well) == ["cpu"]
    assert takers(doubtful, cold, broken) == ["gpu"]
    assert takers(cold, broken) == []


def test_falling_back_a_worker_that_starts_comes_before_one_that_would_answer_later() -> None:
    starting = a_view("gpu", accelerator="gpu", ready=0, starting=1, starts_in_s=30.0)
    other = a_view("neuron", accelerator="neuron", ready=0, startup_s=200.0)
    slow = a_view("cpu", ms=10_000.0)
    full = replace(slow, in_flight=40)

    assert names(route(Need(SILVER), [starting, other, slow])) == ["cpu", "gpu", "neuron"]
    assert names(route(Need(SILVER), [starting, other, full])) == ["gpu", "neuron", "cpu"]
    # Of those at zero the one that is up first, of whatever kind.
    later = replace(starting, starts_in_s=300.0)
    assert names(route(Need(SILVER), [later, other, full])) == ["cpu", "neuron", "gpu"]


def test_only_a_pool_that_may_start_a_worker_is_waited_for() -> None:
    full = a_view("cpu", ms=10_000.0, in_flight=400)
    none = a_view("gpu", ready=0, max_workers=0, startup_s=1.0)
    ill = a_view("neuron", ready=0, is_open=True, startup_s=1.0)

    decision = route(Need(SILVER), [none, ill, full])

    assert names(decision)[0] == "cpu"
    assert decision.soonest_start_ms() == math.inf


def test_falling_back_a_late_answer_comes_before_one_too_late() -> None:
    gpu = a_view("gpu", accelerator="gpu", ms=2000.0)
    cpu = a_view("cpu", ms=900.0)

    assert names(route(Need(GOLD, deadline_s=1.0), [gpu, cpu])) == ["cpu", "gpu"]


def test_falling_back_who_is_in_time_as_a_rule_comes_before_who_never_is() -> None:
    """A stall of the machine takes nobody to a pool that cannot be in time at all."""
    stalled = Live(whole=Quantiles(100, 1.25, 2.0, 24.5))
    fast = a_view("fast", ms=20.0, live=stalled)
    slow = a_view("slow", ms=60.0)
    far = a_view("far", ms=60.0, accelerator="gpu")

    decision = route(Need(GOLD), [slow, far, fast])

    assert decision.fallback
    assert names(decision) == ["fast", "far", "slow"]


def test_a_pool_of_which_nothing_is_known_is_tried_by_bronze_only() -> None:
    known, unknown = a_view("known", usd=1.0), a_view("unknown", usd=0.0, ms=None)

    assert names(route(Need(BRONZE), [known, unknown]))[0] == "unknown"
    assert names(route(Need(SILVER), [known, unknown]))[0] == "known"
    assert "nothing was measured" in route(Need(GOLD), [unknown]).fallback


def test_a_pool_that_may_have_no_workers_is_none_to_wait_for() -> None:
    gone = a_view("gone", ready=0, max_workers=0)
    drained = a_view("cpu", ms=400.0, accelerator="cpu")

    assert names(route(Need(GOLD), [gone, drained])) == ["cpu", "gone"]
    assert not only(Need(BRONZE), gone).fits


def test_a_few_calls_of_the_last_minute_weigh_less_than_the_profile_and_many_more() -> None:
    view = a_view(ms=10.0)

    def p99_ms(count: int) -> float:
        live = Live(whole=Quantiles(count, 10.0, 10.0, 10.0))
        return _ms(only(Need(SILVER), replace(view, live=live)))

    assert p99_ms(1) == pytest.approx(10.0 * (10.0 + PROFILE_WEIGHT) / (1 + PROFILE_WEIGHT))
    assert 90.0 < p99_ms(256) < 100.0
    assert _ms(only(Need(SILVER), view)) == 10.0


def test_one_outlier_among_few_calls_closes_no_pool() -> None:
    def fits(count: int, p95: float) -> bool:
        live = Live(whole=Quantiles(count, 1.0, p95, 15.0))
        return only(Need(SILVER), a_view(ms=20.0, live=live)).fits

    assert fits(1, 15.0)
    assert fits(40, 1.1)
    assert not fits(256, 1.1)


def test_live_times_count_by_size_not_as_they_are() -> None:
    """Ten times as long an answer as those of the last minute takes ten times as long."""
    live = Live(whole=Quantiles(50, 2.0, 2.0, 2.0))
    view = a_view(ms=None, profile=a_profile(base_ms=0.0, output_token_ms=1.0), live=live)

    short = _ms(only(Need(BRONZE, output_tokens=10), view))
    long = _ms(only(Need(BRONZE, output_tokens=100), view))

    assert long == pytest.approx(10 * short)


def test_pools_that_cost_the_same_are_taken_in_order_of_speed_then_as_listed() -> None:
    twins = [a_view("b", usd=0.0), a_view("a", usd=0.0), a_view("c", usd=0.0, ms=5.0)]

    assert names(route(Need(SILVER), twins)) == ["c", "b", "a"]


def test_no_pools_no_choice() -> None:
    decision = route(Need(GOLD), [])

    assert (decision.pools, decision.fallback, decision.is_cold) == ((), "", False)
    with pytest.raises(KeyError):
        decision.of("cpu")


def test_a_pool_whose_engines_lack_what_is_required_is_left_out_with_the_reason() -> None:
    vllm = a_view("gpu", ms=10.0, usd=0.1, extensions=frozenset({Extension.PRIORITY}))
    llama = a_view("cpu", ms=900.0, usd=9.0)
    ids = Need(GOLD, requires=TOKEN_IDS)

    decision = route(ids, [vllm, llama])

    assert names(decision) == ["cpu"]
    assert decision.of("gpu").reason == "its engines have no prompt_token_ids"
    assert not decision.of("gpu").fits
    assert "its engines have no prompt_token_ids" in decision.fallback
    assert names(route(replace(ids, requires=frozenset()), [vllm, llama])) == ["gpu", "cpu"]


def test_where_every_pool_lacks_it_the_engines_have_the_last_word() -> None:
    lacking = [a_view(name, extensions=frozenset()) for name in ("a", "b")]

    decision = route(Need(SILVER, requires=TOKEN_IDS), lacking)

    assert sorted(names(decision)) == ["a", "b"]
    assert "its engines have no prompt_token_ids" in decision.fallback


def test_a_pool_that_says_nothing_of_extensions_has_those_of_its_models() -> None:
    said = a_view("said", usd=2.0, extensions=frozenset(Extension))

    decision = route(Need(SILVER, requires=TOKEN_IDS), [a_view("unsaid", usd=1.0), said])

    assert names(decision) == ["unsaid", "said"]


def test_a_pool_with_fewer_slots_than_its_profile_is_as_dear_as_those_make_it() -> None:
    wide = Profile("m", "1", "gpu", "gpu", base_ms=100.0, company=0.02, best_batch=64)
    gpu = replace(a_view("gpu", usd=2.0), slots=4, profile=wide)

    [seen] = route(Need(SILVER, prompt_tokens=48), [gpu]).candidates

    assert seen.busy_usd_per_item == pytest.approx(2.0 / 3600 * 0.106 / 4)
