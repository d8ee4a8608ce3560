"""Which models workers are asked to load, and by whom."""

from __future__ import annotations

from typing import Any

import pytest

from synapse.application.on_demand import OnDemand
from synapse.domain.extension import NO_EXTENSIONS, Extensions
from synapse.domain.inference import TOKEN_IDS
from synapse.domain.job import SlaTier
from synapse.domain.load import ModelDemand, TierDemand
from synapse.domain.pool import Pool
from synapse.domain.routing import PoolView
from synapse.domain.worker import Worker, WorkerState
from tests.factories import a_pool, a_worker

QUEUED = [ModelDemand("llm", {SlaTier.BRONZE: TierDemand(queued=1)})]
IDLE = a_worker("s-1", "small", models=(), state=WorkerState.IDLE)


class Asked:
    """A loader that only remembers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def ask(self, pool: Pool, model: str) -> None:
        self.asked.append((pool.name, model))


def view(
    name: str = "small",
    *,
    on_demand: bool = True,
    extensions: Extensions | None = None,
    **changes: Any,
) -> PoolView:
    pool = a_pool(name, endpoint="", loads_on_demand=on_demand, extensions=extensions)
    return PoolView(pool, **{"ready": 0, "slots": 4, **changes})


def asked(
    views: list[PoolView], *, demands: list[ModelDemand] = QUEUED, alive: tuple[Worker, ...] = ()
) -> list[tuple[str, str]]:
    loader = Asked()
    OnDemand(loader).look(demands, {"llm": views}, alive or (IDLE,))
    return loader.asked


def test_a_worker_that_is_up_is_asked_for_what_waits() -> None:
    assert asked([view()]) == [("small", "llm")]


def test_callers_on_the_line_count_as_well() -> None:
    assert asked([view(in_flight=1)], demands=[]) == [("small", "llm")]
    assert asked([view()], demands=[]) == []


def test_nobody_is_asked_where_any_worker_has_it() -> None:
    assert asked([view(), view("large", on_demand=False, ready=1)]) == []


def test_what_was_asked_for_otherwise_hides_nothing_that_waits() -> None:
    others = ModelDemand("llm", {SlaTier.SILVER: TierDemand(last_at=1.0)}, requires=TOKEN_IDS)

    assert asked([view()], demands=[*QUEUED, others]) == [("small", "llm")]
    assert asked([view()], demands=[others, *QUEUED]) == [("small", "llm")]


def test_a_worker_that_cannot_do_it_is_nobody() -> None:
    ids = ModelDemand("llm", {SlaTier.SILVER: TierDemand(queued=1)}, requires=TOKEN_IDS)
    without = view("large", on_demand=False, ready=1, extensions=NO_EXTENSIONS)

    assert asked([without, view()], demands=[ids]) == [("small", "llm")]
    assert asked([without, view()]) == []
    assert asked([view(extensions=NO_EXTENSIONS)], demands=[ids]) == [("small", "llm")], (
        "where none can, an engine is to say so"
    )


def test_where_somebody_is_held_the_model_is_loaded_though_another_pool_has_it() -> None:
    other = view("large", on_demand=False, ready=1, in_flight=4)

    assert asked([other, view(in_flight=1)], demands=[]) == [("small", "llm")]
    assert asked([other, view()], demands=[]) == []


def test_pools_that_load_nothing_on_demand_are_not_asked() -> None:
    large = a_worker("l-1", "large", models=(), state=WorkerState.READY)

    assert asked([view("large", on_demand=False)], alive=(large,)) == []
    assert asked([view("large", on_demand=False), view()], alive=(large, IDLE)) == [
        ("small", "llm")
    ]


@pytest.mark.parametrize("state", [WorkerState.DEGRADED, WorkerState.LOADING])
def test_one_that_is_down_or_starts_is_not_asked(state: WorkerState) -> None:
    assert asked([view()], alive=(a_worker("s-1", "small", models=(), state=state),)) == []
