"""Which models workers are asked to load, and by whom."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pytest

from synapse.adapters.local.demand import LocalStartTimes
from synapse.application.on_demand import CLEARING_S, OnDemand, load_of
from synapse.domain.extension import NO_EXTENSIONS, Extensions
from synapse.domain.inference import TOKEN_IDS
from synapse.domain.job import SlaTier
from synapse.domain.load import ModelDemand, TierDemand
from synapse.domain.pool import Pool, WarmWindow
from synapse.domain.routing import PoolView
from synapse.domain.turns import TURN_LOADS
from synapse.domain.worker import CacheLevel, Worker, WorkerModel, WorkerState
from tests.factories import NOW, a_pool, a_worker

QUEUED = [ModelDemand("llm", {SlaTier.BRONZE: TierDemand(queued=1)})]
IDLE = a_worker("s-1", "small", models=(), state=WorkerState.IDLE)


class Asked:
    """A loader that only remembers; workers in `busy` begin nothing, nobody those in `refusing`."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.by: list[str] = []
        self.kept: list[Collection[str]] = []
        self.yielding: list[Collection[str]] = []
        self.busy: set[str] = set()
        self.refusing: set[str] = set()
        self.failing: dict[tuple[str, str], str] = {}

    def ask(
        self,
        worker: str,
        pool: Pool,
        model: str,
        keep: Collection[str] = (),
        yielding: Collection[str] = (),
    ) -> bool:
        if worker in self.busy or model in self.refusing:
            return False
        self.busy.add(worker)
        self.asked.append((pool.name, model))
        self.by.append(worker)
        self.kept.append(keep)
        self.yielding.append(yielding)
        return True

    def troubles(self) -> Mapping[tuple[str, str], str]:
        return self.failing


def on_demand(loader: Asked) -> OnDemand:
    return OnDemand(loader, LocalStartTimes())


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


async def asked(
    views: list[PoolView], *, demands: list[ModelDemand] = QUEUED, alive: tuple[Worker, ...] = ()
) -> list[tuple[str, str]]:
    loader = Asked()
    await on_demand(loader).look(demands, {"llm": views}, alive or (IDLE,), NOW)
    return loader.asked


async def test_a_worker_that_is_up_is_asked_for_what_waits() -> None:
    assert await asked([view()]) == [("small", "llm")]


async def test_callers_on_the_line_count_as_well() -> None:
    assert await asked([view(in_flight=1)], demands=[]) == [("small", "llm")]
    assert await asked([view()], demands=[]) == []


async def test_nobody_is_asked_where_any_worker_has_it() -> None:
    assert await asked([view(), view("large", on_demand=False, ready=1)]) == []


async def test_what_was_asked_for_otherwise_hides_nothing_that_waits() -> None:
    others = ModelDemand("llm", {SlaTier.SILVER: TierDemand(last_at=1.0)}, requires=TOKEN_IDS)

    assert await asked([view()], demands=[*QUEUED, others]) == [("small", "llm")]
    assert await asked([view()], demands=[others, *QUEUED]) == [("small", "llm")]


async def test_a_worker_that_cannot_do_it_is_nobody() -> None:
    ids = ModelDemand("llm", {SlaTier.SILVER: TierDemand(queued=1)}, requires=TOKEN_IDS)
    without = view("large", on_demand=False, ready=1, extensions=NO_EXTENSIONS)

    assert await asked([without, view()], demands=[ids]) == [("small", "llm")]
    assert await asked([without, view()]) == []
    assert await asked([view(extensions=NO_EXTENSIONS)], demands=[ids]) == [("small", "llm")], (
        "where none can, an engine is to say so"
    )


async def test_where_somebody_is_held_the_model_is_loaded_though_another_pool_has_it() -> None:
    other = view("large", on_demand=False, ready=1, in_flight=4)

    assert await asked([other, view(in_flight=1)], demands=[]) == [("small", "llm")]
    assert await asked([other, view()], demands=[]) == []


async def test_pools_that_load_nothing_on_demand_are_not_asked() -> None:
    large = a_worker("l-1", "large", models=(), state=WorkerState.READY)

    assert await asked([view("large", on_demand=False)], alive=(large,)) == []
    assert await asked([view("large", on_demand=False), view()], alive=(large, IDLE)) == [
        ("small", "llm")
    ]


@pytest.mark.parametrize("state", [WorkerState.DEGRADED, WorkerState.LOADING])
async def test_one_that_is_down_or_starts_is_not_asked(state: WorkerState) -> None:
    assert await asked([view()], alive=(a_worker("s-1", "small", models=(), state=state),)) == []


BACKLOG = [ModelDemand("llm", {SlaTier.BRONZE: TierDemand(queued=4000, arrivals_per_s=1.0)})]
THREE = tuple(a_worker(f"s-{n}", "small", models=(), state=WorkerState.IDLE) for n in range(3))


@pytest.mark.parametrize(("ready", "is_asked"), [(0, True), (1, True), (2, True), (3, False)])
async def test_as_many_have_it_as_its_work_needs_and_are_up(ready: int, is_asked: bool) -> None:
    seen = await asked([view(ready=ready, seconds_per_item=1.0)], demands=BACKLOG, alive=THREE)

    assert (("small", "llm") in seen) == is_asked


async def test_one_is_enough_for_little_work() -> None:
    assert await asked([view(ready=1, seconds_per_item=1.0)], alive=THREE) == []
    assert await asked([view(ready=1)], demands=BACKLOG, alive=THREE) == [], "its size is not known"


async def test_what_others_are_asked_for_makes_no_room_for_one_more() -> None:
    loader = Asked()
    other = ModelDemand("echo", {SlaTier.SILVER: TierDemand(arrivals_per_s=0.1)})
    of_old = ModelDemand("old", {SlaTier.SILVER: TierDemand(last_at=1.0)})
    views = {"llm": [view(ready=1, seconds_per_item=1.0)]}

    await on_demand(loader).look([*BACKLOG, other, of_old], views, THREE, NOW)

    assert (loader.asked, loader.kept) == ([("small", "llm")], [{"echo"}])


async def test_a_model_is_loaded_where_it_is_to_be_warm() -> None:
    warm = (WarmWindow("llm", workers=2), WarmWindow("echo", workers=3))

    assert await asked([view(warm=warm)], demands=[], alive=THREE) == [("small", "llm")]
    assert await asked([view(warm=warm, ready=1)], demands=[], alive=THREE) == [("small", "llm")]
    assert await asked([view(warm=warm, ready=2)], demands=[], alive=THREE) == []
    assert await asked([view(warm=warm, ready=1)], demands=[]) == [], "no other worker is up"


async def test_two_that_are_to_be_warm_do_not_take_turns() -> None:
    loader = Asked()
    pool = view(warm=(WarmWindow("llm"), WarmWindow("echo"))).pool
    views = {"llm": [PoolView(pool, 4, ready=1)], "echo": [PoolView(pool, 4, ready=0)]}

    await on_demand(loader).look([], views, (IDLE,), NOW)

    assert (loader.asked, loader.kept) == ([("small", "echo")], [{"llm"}])


class Turns:
    """One worker, or several, that have models, and others that wait; time goes by by hand."""

    def __init__(self, *has: str) -> None:
        self.loader = Asked()
        self.on_demand = on_demand(self.loader)
        self.has = dict.fromkeys(("s-1",), has)
        self.queued: dict[str, SlaTier] = {}
        self.under_way: set[str] = set()
        self.now = NOW

    async def round(self, after_s: float = 0.0) -> list[str]:
        """What is asked for after so many seconds, if all loads have ended meanwhile."""
        self.now += after_s
        self.loader.busy.clear()
        self.loader.asked.clear()
        self.loader.by.clear()
        demands = [
            ModelDemand(model, {tier: TierDemand(queued=90)}) for model, tier in self.queued.items()
        ]
        alive = [
            a_worker(
                worker,
                "small",
                models=tuple(WorkerModel(m, "1", CacheLevel.GPU_RESIDENT) for m in has),
            )
            for worker, has in self.has.items()
        ]
        pool = view().pool
        models = {*self.queued, *self.under_way, *(m for has in self.has.values() for m in has)}
        views = {
            model: [
                PoolView(
                    pool,
                    4,
                    sum(worker.has(model) for worker in alive),
                    in_flight=2 * (model in self.under_way),
                    seconds_per_item=100.0,
                )
            ]
            for model in sorted(models)
        }
        await self.on_demand.look(demands, views, alive, self.now)
        return [model for _, model in self.loader.asked]

    @property
    def terms(self) -> tuple[Collection[str], Collection[str]]:
        """Who of the last load's worker is kept, and who yields."""
        return self.loader.kept[-1], self.loader.yielding[-1]


A_TURN_S = TURN_LOADS * a_pool().startup_s


async def test_what_was_just_loaded_makes_no_room_before_its_work_has_come_there() -> None:
    turns = Turns("old")
    turns.queued = {"old": SlaTier.BRONZE, "llm": SlaTier.BRONZE}

    assert await turns.round() == ["llm"]
    assert turns.terms == ({"old"}, set())
    assert await turns.round(A_TURN_S - 1) == ["llm"]
    assert turns.terms == ({"old"}, set())


async def test_a_busy_model_yields_once_it_has_had_its_turn() -> None:
    turns = Turns("old")
    turns.queued = {"old": SlaTier.BRONZE, "llm": SlaTier.BRONZE}
    await turns.round()

    assert await turns.round(A_TURN_S) == ["llm"]
    assert turns.terms == (set(), {"old"})


async def test_a_turn_is_as_long_as_loads_of_the_model_take() -> None:
    turns = Turns("old")
    turns.queued = {"old": SlaTier.BRONZE, "llm": SlaTier.BRONZE}
    await turns.on_demand.starts.started(load_of("small", "old"), 1.0)
    await turns.round()

    await turns.round(TURN_LOADS)
    assert turns.terms == (set(), {"old"})


async def test_of_two_that_wait_the_better_tier_is_first_but_the_other_not_last_for_ever() -> None:
    turns = Turns()
    turns.queued = {"plain": SlaTier.BRONZE}
    await turns.round()

    turns.queued["fine"] = SlaTier.GOLD
    assert await turns.round(1.0) == ["fine"], "the worker is for one at a time"
    del turns.queued["fine"]
    await turns.round()
    turns.queued["fine"] = SlaTier.GOLD
    assert await turns.round(300.0) == ["plain"]


async def test_no_other_takes_the_place_that_is_being_cleared() -> None:
    turns = Turns("old")
    turns.queued = {"old": SlaTier.BRONZE, "llm": SlaTier.BRONZE}
    await turns.round()
    await turns.round(A_TURN_S)

    # It still answers what it was asked, for longer than the load could wait.
    turns.has["s-1"] = ()
    turns.under_way = {"old"}
    turns.loader.refusing = {"llm"}
    turns.queued["fine"] = SlaTier.GOLD
    assert await turns.round(1.0) == []
    turns.loader.refusing.clear()
    assert await turns.round(1.0) == ["llm"]
    turns.has["s-1"] = ("llm",)
    assert await turns.round(1.0) == ["fine"]


async def test_one_that_makes_way_is_not_had_back_for_what_it_still_answers() -> None:
    turns = Turns("old")
    turns.queued = {"llm": SlaTier.BRONZE}
    turns.under_way = {"old"}
    await turns.round()
    await turns.round(A_TURN_S + 300.0)
    assert turns.terms == (set(), {"old"})

    turns.has = {"s-1": (), "s-2": ()}
    turns.loader.refusing = {"llm"}
    assert await turns.round() == []
    assert await turns.round(CLEARING_S) == ["old"], "that may be callers who came since"


async def test_a_worker_is_not_held_for_ever_for_one_that_does_not_come() -> None:
    turns = Turns("old")
    turns.queued = {"old": SlaTier.BRONZE, "llm": SlaTier.BRONZE}
    await turns.round()
    assert await turns.round(A_TURN_S) == ["llm"]
    turns.queued["fine"] = SlaTier.BRONZE

    # The loader refuses it between its tries: something else there never goes.
    for _ in range(3):
        turns.loader.refusing = {"llm"}
        assert await turns.round(1.0) == []
        turns.loader.refusing.clear()
        assert await turns.round(1.0) == ["llm"]
    turns.loader.refusing = {"llm"}
    assert await turns.round(CLEARING_S - 6.0) == ["fine"], "further tries do not prolong it"


async def test_nobody_has_a_model_twice_while_another_one_waits_for_a_place() -> None:
    turns = Turns("old")
    turns.has["s-2"] = ()
    turns.queued = {"old": SlaTier.BRONZE, "llm": SlaTier.BRONZE}
    turns.loader.refusing = {"llm"}
    assert await turns.round() == []

    turns.loader.failing = {("small", "llm"): "it is broken"}
    assert await turns.round() == ["old"], "that one may wait for ever"


async def test_two_that_wait_are_for_two_workers() -> None:
    turns = Turns()
    turns.has = {"s-1": (), "s-2": ()}
    turns.queued = {"one": SlaTier.BRONZE, "two": SlaTier.BRONZE}

    assert await turns.round() == ["one", "two"]
    assert turns.loader.by == ["s-1", "s-2"]


async def test_the_idle_and_empty_are_asked_first_and_others_where_they_refuse() -> None:
    alive = (
        a_worker("s-1", "small", models=(), state=WorkerState.INFERRING),
        a_worker("s-2", "small", state=WorkerState.READY),
        a_worker("s-3", "small", models=(), state=WorkerState.IDLE),
        a_worker("s-4", "small", models=(), state=WorkerState.DEGRADED),
        a_worker("t-1", "other", models=(), state=WorkerState.IDLE),
    )
    loader = Asked()
    for _ in range(4):
        await on_demand(loader).look(QUEUED, {"llm": [view()]}, alive, NOW)

    assert loader.by == ["s-3", "s-2", "s-1"]
