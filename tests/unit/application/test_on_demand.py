"""Which models workers are asked to load, and by whom."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from synapse.application.on_demand import OnDemand
from synapse.domain.extension import NO_EXTENSIONS, Extensions
from synapse.domain.inference import TOKEN_IDS
from synapse.domain.job import SlaTier
from synapse.domain.load import ModelDemand, TierDemand
from synapse.domain.pool import Pool, WarmWindow
from synapse.domain.routing import PoolView
from synapse.domain.worker import Worker, WorkerState
from tests.factories import NOW, a_pool, a_worker

QUEUED = [ModelDemand("llm", {SlaTier.BRONZE: TierDemand(queued=1)})]
IDLE = a_worker("s-1", "small", models=(), state=WorkerState.IDLE)


class Asked:
    """A loader that only remembers."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

        self.kept: list[Collection[str]] = []

    def ask(self, pool: Pool, model: str, keep: Collection[str] = ()) -> None:
        self.asked.append((pool.name, model))
        self.kept.append(keep)


def view(
    name: str = "small",
    *,
    on_demand: bool = True,
    extensions: Extensions | None = None,
    warm: tuple[WarmWindow, ...] = (),
    **changes: Any,
) -> PoolView:
    pool = a_pool(
        name,
        endpoint="",
        max_workers=4,
        loads_on_demand=on_demand,
        extensions=extensions,
        warm=warm,
    )
    return PoolView(pool, **{"ready": 0, "slots": 4, **changes})


def asked(
    views: list[PoolView], *, demands: list[ModelDemand] = QUEUED, alive: tuple[Worker, ...] = ()
) -> list[tuple[str, str]]:
    loader = Asked()
    OnDemand(loader).look(demands, {"llm": views}, alive or (IDLE,), NOW)
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


BACKLOG = [ModelDemand("llm", {SlaTier.BRONZE: TierDemand(queued=4000, arrivals_per_s=1.0)})]
THREE = tuple(a_worker(f"s-{n}", "small", models=(), state=WorkerState.IDLE) for n in range(3))


@pytest.mark.parametrize(("ready", "is_asked"), [(0, True), (1, True), (2, True), (3, False)])
def test_as_many_have_it_as_its_work_needs_and_are_up(ready: int, is_asked: bool) -> None:
    seen = asked([view(ready=ready, seconds_per_item=1.0)], demands=BACKLOG, alive=THREE)

    assert (("small", "llm") in seen) == is_asked


def test_one_is_enough_for_little_work() -> None:
    assert asked([view(ready=1, seconds_per_item=1.0)], alive=THREE) == []
    assert asked([view(ready=1)], demands=BACKLOG, alive=THREE) == [], "its size is not known"


def test_what_others_are_asked_for_makes_no_room_for_one_more() -> None:
    loader = Asked()
    other = ModelDemand("echo", {SlaTier.SILVER: TierDemand(arrivals_per_s=0.1)})
    of_old = ModelDemand("old", {SlaTier.SILVER: TierDemand(last_at=1.0)})
    views = {"llm": [view(ready=1, seconds_per_item=1.0)]}

    OnDemand(loader).look([*BACKLOG, other, of_old], views, THREE, NOW)

    assert (loader.asked, loader.kept) == ([("small", "llm")], [{"echo"}])


def test_a_model_is_loaded_where_it_is_to_be_warm() -> None:
    warm = (WarmWindow("llm", workers=2), WarmWindow("echo", workers=3))

    assert asked([view(warm=warm)], demands=[], alive=THREE) == [("small", "llm")]
    assert asked([view(warm=warm, ready=1)], demands=[], alive=THREE) == [("small", "llm")]
    assert asked([view(warm=warm, ready=2)], demands=[], alive=THREE) == []
    assert asked([view(warm=warm, ready=1)], demands=[]) == [], "no other worker is up"


def test_two_that_are_to_be_warm_do_not_take_turns() -> None:
    loader = Asked()
    pool = view(warm=(WarmWindow("llm"), WarmWindow("echo"))).pool
    views = {"llm": [PoolView(pool, 4, ready=1)], "echo": [PoolView(pool, 4, ready=0)]}

    OnDemand(loader).look([], views, (IDLE,), NOW)

    assert (loader.asked, loader.kept) == ([("small", "echo")], [{"llm"}])
