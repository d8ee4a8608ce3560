"""What an item asks of the workers of a pool."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.job import SlaTier
from synapse.domain.load import ModelDemand, PoolLoad, TierDemand, spread_demand
from synapse.domain.pool import Pool
from synapse.domain.profile import Profile
from synapse.domain.routing import TIER_P99_MS, Need, PoolView
from synapse.domain.sizing import Crowd, crowd_of, slots_within, unmixed, worker_s_per_item
from synapse.domain.staffing import MOST_USE, workers_for

GOLD, SILVER, BRONZE = SlaTier.GOLD, SlaTier.SILVER, SlaTier.BRONZE
POOL = Pool("gpu", "gpu", min_workers=0, max_workers=8, price_per_hour_usd=1.0)


def a_view(base_ms: float, *, slots: int = 8, **fields: Any) -> PoolView:
    """Items of so many milliseconds that share a worker, unless the profile is said otherwise."""
    profile = {"company": 1.0, "items_per_s": 1000 / base_ms, **fields}
    return PoolView(POOL, slots, 1, profile=Profile("m", "1", "gpu", "gpu", base_ms, **profile))


def test_a_promise_bears_as_much_company_as_leaves_the_item_its_time() -> None:
    assert crowd_of(Need(SILVER), a_view(70.0)) == Crowd(1, 2)
    assert crowd_of(Need(GOLD), a_view(16.0)) == Crowd(1, 3)


def test_short_items_may_even_wait_for_a_slot() -> None:
    # Eight take 24 ms together, and the promise leaves time for 6 such rounds.
    assert crowd_of(Need(SILVER), a_view(3.0)) == Crowd(1, 50)


def test_slots_that_do_not_hold_each_other_up_serve_side_by_side() -> None:
    free = a_view(100.0, company=0.0, best_batch=8)
    some = a_view(9.9, company=0.2, best_batch=8)

    assert crowd_of(Need(SILVER), free) == Crowd(8, 12)
    assert crowd_of(Need(SILVER), some) == Crowd(3, 50)


def test_no_promise_or_one_that_breaks_anyway_asks_for_no_room() -> None:
    unmeasured = PoolView(POOL, 8, 1, seconds_per_item=0.1)

    assert crowd_of(Need(BRONZE), a_view(70.0)) is None
    assert crowd_of(Need(SILVER), a_view(200.0)) is None
    assert crowd_of(Need(SILVER), unmeasured) is None


@pytest.mark.parametrize(
    ("base_ms", "company", "gold", "silver"),
    [(16.0, 1.0, 3, 9), (70.0, 1.0, 0, 2), (200.0, 0.0, 0, 0), (20.0, 0.0, 64, 64)],
)
def test_a_pool_may_have_as_many_slots_as_keep_the_promise_when_all_are_taken(
    base_ms: float, company: float, gold: int, silver: int
) -> None:
    profile = Profile("m", "1", "gpu", "gpu", base_ms, company=company)

    assert slots_within(profile, Need(GOLD), 64) == gold
    assert slots_within(profile, Need(SILVER), 64) == silver


def test_of_generations_the_slots_are_as_many_as_keep_the_promise_of_the_first_token() -> None:
    profile = Profile("m", "1", "gpu", "gpu", 10.0, output_token_ms=5.0, first_company=1.0)

    assert slots_within(profile, Need(GOLD, output_tokens=256, first_token_only=True), 64) == 5
    assert slots_within(profile, Need(GOLD, output_tokens=256), 64) == 0


@given(st.floats(0.5, 300.0), st.floats(0.0, 1.0), st.integers(1, 32), st.sampled_from(SlaTier))
def test_the_company_that_is_borne_keeps_the_promise(
    base_ms: float, company: float, slots: int, tier: SlaTier
) -> None:
    view = a_view(base_ms, company=company, slots=slots, best_batch=slots)
    crowd = crowd_of(Need(tier), view)

    if crowd is not None:
        assert view.profile is not None
        assert 1 <= crowd.side_by_side <= crowd.most
        turns = max(1.0, crowd.most / slots)
        took_ms = turns * view.profile.p99_ms(0, 0, min(slots, crowd.most))
        assert took_ms <= TIER_P99_MS[tier] * (1 + 1e-9)


def test_what_was_measured_with_more_slots_tells_what_a_worker_does_with_those_it_has() -> None:
    # 64 side by side at 2 % each: 283 a second; with 4 slots 4 take 106 ms: 37.7 a second.
    fields = {"company": 0.02, "best_batch": 64, "items_per_s": 64 / 0.226}
    many, few = a_view(100.0, slots=64, **fields), a_view(100.0, slots=4, **fields)

    for tokens in (0, 1):  # by the throughput measured, and by the times of an item
        assert worker_s_per_item(many, tokens, 0) == pytest.approx(0.226 / 64)
        assert worker_s_per_item(few, tokens, 0) == pytest.approx(0.106 / 4)
    assert load_of(SILVER, 30.0, few).steady() > 1


def load_of(tier: SlaTier, arrivals_per_s: float, view: PoolView) -> PoolLoad:
    demand = ModelDemand("m", {tier: TierDemand(arrivals_per_s=arrivals_per_s)})
    [load] = spread_demand([demand], {"m": [view]}).values()
    return load


def test_arrivals_need_so_many_workers_that_their_promise_is_kept() -> None:
    # 8 a second of 70 ms keep 56 % of a worker busy: three at once would be one too many.
    assert load_of(SILVER, 8.0, a_view(70.0)).steady() == pytest.approx(workers_for(0.56, 1, 2))
    assert load_of(SILVER, 8.0, a_view(70.0)).steady() > 1
    assert load_of(SILVER, 2.0, a_view(200.0)).steady() == pytest.approx(0.4 / MOST_USE)
    assert load_of(BRONZE, 8.0, a_view(70.0)).steady() < 0.6


def test_an_item_is_not_as_long_as_the_company_of_another_model_made_it() -> None:
    """A text of 3 ms that waited for a slot behind rerankings of 11 s."""
    text = PoolView(POOL, 8, 1, seconds_per_item=5.0, profile=a_view(3.0).profile)
    rerank = PoolView(POOL, 8, 1, seconds_per_item=80.0, profile=a_view(11_000.0).profile)
    unprofiled = PoolView(POOL, 8, 1, seconds_per_item=5.0)

    mixed = unmixed({"text": [text], "rerank": [rerank], "new": [unprofiled]})
    alone = unmixed({"text": [text]})

    assert worker_s_per_item(mixed["text"][0], 0, 0) == pytest.approx(0.003)
    assert worker_s_per_item(mixed["rerank"][0], 0, 0) == pytest.approx(11.0)
    assert worker_s_per_item(mixed["new"][0], 0, 0) == pytest.approx(5.0 / 8)
    assert worker_s_per_item(alone["text"][0], 0, 0) == pytest.approx(5.0 / 8)
