"""Pools that are done without, because others that are up anyway do their work along."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.consolidation import TOLERANCE, consolidate_demand
from synapse.domain.job import SlaTier
from synapse.domain.load import ModelDemand, PoolLoad, TierDemand, spread_demand
from synapse.domain.pool import Pool
from synapse.domain.profile import Profile
from synapse.domain.routing import PoolView

GOLD, SILVER, BRONZE = SlaTier.GOLD, SlaTier.SILVER, SlaTier.BRONZE


def a_view(pool: str, model: str, item_ms: float, *, ready: int = 1, **changes: Any) -> PoolView:
    """A cheap slow pool `cpu` or a dear fast one `gpu`; items share a worker."""
    usd = {"cpu": 0.1, "gpu": 1.0}[pool]
    fields = {"min_workers": 0, "max_workers": 8, "price_per_hour_usd": usd}
    profile = Profile(
        *(model, "1", pool, pool), base_ms=item_ms, company=1.0, items_per_s=1000 / item_ms
    )
    pool_fields = {**fields, **changes.pop("pool", {})}
    return PoolView(
        Pool(pool, pool, **pool_fields), slots=16, ready=ready, profile=profile, **changes
    )


def views_of(text: Sequence[PoolView], images: Sequence[PoolView]) -> dict[str, list[PoolView]]:
    return {"text": list(text), "image": list(images)}


BOTH_UP = views_of(
    [a_view("cpu", "text", 4.0), a_view("gpu", "text", 2.0)],
    [a_view("cpu", "image", 4000.0), a_view("gpu", "image", 40.0)],
)
"""Texts are cheaper on the CPU, images must go to the GPU."""


def asked(model: str, per_s: float, tier: SlaTier = SILVER, **changes: Any) -> ModelDemand:
    return ModelDemand(model, {tier: TierDemand(arrivals_per_s=per_s, last_at=1.0, **changes)})


def busy(loads: Mapping[str, PoolLoad], pool: str) -> float:
    return sum(loads[pool].busy.values())


def test_a_little_work_goes_where_a_worker_is_up_for_other_work_anyway() -> None:
    demands = [asked("text", 3.0), asked("image", 3.0)]

    apart, together = spread_demand(demands, BOTH_UP), consolidate_demand(demands, BOTH_UP)

    assert busy(apart, "cpu") == pytest.approx(0.012)
    assert together["cpu"] == PoolLoad()
    assert busy(together, "gpu") == pytest.approx(0.12 + 0.006)


def test_it_stays_where_the_other_pool_would_need_a_further_worker_for_it() -> None:
    demands = [asked("text", 300.0), asked("image", 4.0)]

    assert busy(consolidate_demand(demands, BOTH_UP), "cpu") == pytest.approx(1.2)


def test_it_stays_until_the_other_pools_worker_is_up() -> None:
    starting = {
        model: [replace(view, ready=0) if view.pool.name == "gpu" else view for view in of_model]
        for model, of_model in BOTH_UP.items()
    }

    together = consolidate_demand([asked("text", 3.0), asked("image", 3.0)], starting)

    assert busy(together, "cpu") == pytest.approx(0.012)


def test_it_stays_where_nothing_else_asks_for_the_other_pool() -> None:
    together = consolidate_demand([asked("text", 3.0)], BOTH_UP)

    assert busy(together, "cpu") == pytest.approx(0.012)
    assert busy(together, "gpu") == 0


def test_it_stays_where_the_other_pool_does_not_keep_its_promise() -> None:
    slow_texts = {**BOTH_UP, "text": [a_view("cpu", "text", 4.0), a_view("gpu", "text", 60.0)]}
    demands = [asked("text", 0.1, GOLD), asked("image", 3.0)]

    assert busy(consolidate_demand(demands, slow_texts), "cpu") > 0


def test_a_pool_that_is_kept_up_in_any_case_keeps_its_work() -> None:
    kept = {**BOTH_UP, "text": [a_view("cpu", "text", 4.0, kept=1), a_view("gpu", "text", 2.0)]}
    kept["image"] = [a_view("cpu", "image", 4000.0, kept=1), a_view("gpu", "image", 40.0)]

    together = consolidate_demand([asked("text", 3.0), asked("image", 3.0)], kept)

    assert busy(together, "cpu") == pytest.approx(0.012)


def test_a_pool_whose_start_somebody_is_held_for_is_not_given_up() -> None:
    held = {
        **BOTH_UP,
        "text": [a_view("cpu", "text", 4.0, ready=0, in_flight=2), a_view("gpu", "text", 2.0)],
    }

    together = consolidate_demand([asked("text", 3.0), asked("image", 3.0)], held)

    assert together["cpu"].waiting == 2


def test_what_is_under_way_in_a_pool_that_is_given_up_ends_there() -> None:
    under_way = {
        **BOTH_UP,
        "text": [a_view("cpu", "text", 4.0, in_flight=3), a_view("gpu", "text", 2.0)],
    }

    together = consolidate_demand([asked("text", 3.0), asked("image", 3.0)], under_way)

    assert together["cpu"] == PoolLoad(in_flight=3)


def test_what_was_never_measured_on_the_other_pool_does_not_go_there() -> None:
    unknown = replace(a_view("gpu", "text", 2.0), profile=None)
    views = {**BOTH_UP, "text": [a_view("cpu", "text", 4.0), unknown]}

    together = consolidate_demand([asked("text", 3.0, BRONZE), asked("image", 3.0)], views)

    assert busy(together, "cpu") == pytest.approx(0.012)


def test_a_model_that_fits_nowhere_does_not_keep_the_others_apart() -> None:
    hopeless = [a_view("gpu", "film", 9000.0)]
    demands = [asked("text", 3.0), asked("image", 3.0), asked("film", 0.001)]

    together = consolidate_demand(demands, {**BOTH_UP, "film": hopeless})

    assert together["cpu"] == PoolLoad()


@st.composite
def fleets(draw: st.DrawFn) -> tuple[list[ModelDemand], dict[str, list[PoolView]]]:
    ready = {pool: draw(st.integers(0, 3)) for pool in ("cpu", "gpu")}
    kept = {pool: draw(st.integers(0, 1)) for pool in ("cpu", "gpu")}
    views = {
        model: [
            a_view(pool, model, draw(st.floats(1.0, 300.0)), ready=ready[pool], kept=kept[pool])
            for pool in ("cpu", "gpu")
        ]
        for model in ("text", "image")
    }
    demands = [
        asked(model, draw(st.floats(0.0, 50.0)), draw(st.sampled_from(list(SlaTier))))
        for model in views
    ]
    return demands, views


def workers(loads: Mapping[str, PoolLoad]) -> dict[str, int]:
    return {
        name: max(1, math.ceil(load.workers(5.0) - TOLERANCE)) if any(load.busy.values()) else 0
        for name, load in loads.items()
    }


@given(fleets())
def test_no_pool_ever_needs_more_workers_than_without_it(
    fleet: tuple[list[ModelDemand], dict[str, list[PoolView]]],
) -> None:
    demands, views = fleet

    apart = workers(spread_demand(demands, views))
    together = workers(consolidate_demand(demands, views))

    assert set(together) == set(apart)
    assert all(together[name] <= apart[name] for name in apart)
    assert any(together.values()) == any(apart.values())
