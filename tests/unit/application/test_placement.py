"""Which worker of a pool: one that is alive, has the model, and does not fail."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest

from synapse.application.placement import WELL, rank_of
from synapse.application.roster import Roster
from synapse.domain.errors import EngineUnavailable
from synapse.domain.pool import Pool
from synapse.domain.worker import CacheLevel, WorkerModel, WorkerState
from tests.fakes import FakeClock
from tests.unit.application.toy_workers import ECHO, LLM, ToyFleetWorld, a_toy_worker

FIXED = Pool("own", "cpu", endpoint="10.0.0.1:8001")


async def placed(world: ToyFleetWorld, affinity: str = "", avoid: tuple[str, ...] = ()) -> str:
    pool = await world.fleet.placement.place(ECHO, world.pools[0], affinity, avoid)
    return pool.worker


async def test_a_placed_pool_has_the_endpoint_and_the_id_of_a_worker() -> None:
    world = ToyFleetWorld()
    await world.up("w-1", endpoint="127.0.0.1:7001")

    pool = await world.fleet.placement.place(ECHO, world.pools[0])

    assert pool == replace(world.pools[0], endpoint="127.0.0.1:7001", worker="w-1")


async def test_a_worker_that_moved_is_found_at_its_new_place() -> None:
    world = ToyFleetWorld()
    await world.up("w-1", endpoint="127.0.0.1:7001")
    await world.fleet.placement.place(ECHO, world.pools[0])

    await world.up("w-1", endpoint="127.0.0.1:7002")

    assert (await world.fleet.placement.place(ECHO, world.pools[0])).endpoint == "127.0.0.1:7002"


async def test_a_pool_with_an_endpoint_of_its_own_is_its_only_worker() -> None:
    world = ToyFleetWorld([FIXED])

    assert await world.fleet.placement.place(ECHO, FIXED) is FIXED
    with pytest.raises(EngineUnavailable):
        await world.fleet.placement.place(ECHO, FIXED, "", {""})


@pytest.mark.parametrize(
    "worker",
    [
        {"state": WorkerState.DEGRADED},
        {"lease_until": 1.0},
        {"models": (WorkerModel("echo", "1", CacheLevel.NVME_CACHED),)},
        {"models": (WorkerModel("llm", "1", CacheLevel.GPU_RESIDENT),)},
        {"pool": "gpu"},
    ],
    ids=["degraded", "dead", "not loaded", "another model", "another pool"],
)
async def test_a_worker_that_cannot_answer_is_not_asked(worker: dict[str, object]) -> None:
    world = ToyFleetWorld()
    await world.workers.beat(replace(a_toy_worker("w-1"), **worker))  # type: ignore[arg-type]

    with pytest.raises(EngineUnavailable, match="has no worker for the model"):
        await placed(world)


async def test_a_pool_whose_workers_start_says_so() -> None:
    world = ToyFleetWorld()
    await world.up("w-1", state=WorkerState.LOADING, models=())

    with pytest.raises(EngineUnavailable, match="starting"):
        await placed(world)


async def test_idle_workers_are_taken_in_turn() -> None:
    world = ToyFleetWorld()
    await world.up("w-1", "w-2", "w-3")

    found = Counter([await placed(world) for _ in range(30)])

    assert found == {"w-1": 10, "w-2": 10, "w-3": 10}


async def test_the_least_busy_worker_is_taken() -> None:
    world = ToyFleetWorld()
    await world.up("w-1", "w-2", "w-3")
    world.fleet.vitals.outstanding.update(
        {("cpu", "w-1"): 2, ("cpu", "w-2"): 1, ("cpu", "w-3"): 2, ("gpu", "w-2"): 9}
    )

    assert {await placed(world) for _ in range(9)} == {"w-2"}


async def test_what_was_lost_before_goes_where_nothing_has_just_failed() -> None:
    world = ToyFleetWorld()
    await world.up("w-1", "w-2")
    breaker = world.fleet.vitals.breaker("echo", "cpu", "w-1")
    breaker.failed(breaker.began(0.0), 0.0)
    world.fleet.vitals.outstanding["cpu", "w-2"] = 5

    place = world.fleet.placement.place
    wary = {(await place(ECHO, world.pools[0], wary=True)).worker for _ in range(9)}

    assert wary == {"w-2"}
    assert {await placed(world) for _ in range(9)} == {"w-1"}


async def test_what_was_lost_before_is_not_what_a_failing_worker_is_tried_with() -> None:
    world = ToyFleetWorld()
    await world.up("w-1", "w-2")
    failing, slow = (world.fleet.vitals.breaker("echo", "cpu", w) for w in ("w-1", "w-2"))
    for _ in range(3):
        failing.failed(failing.began(0.0), 0.0)
        slow.failed(slow.began(0.0), 0.0, mild=True)
    world.tick.advance(1.0)
    slow.began(world.tick())
    assert failing.lets_through(world.tick()) and not slow.lets_through(world.tick())

    place = world.fleet.placement.place
    wary = {(await place(ECHO, world.pools[0], wary=True)).worker for _ in range(9)}

    assert wary == {"w-2"}
    assert {await placed(world) for _ in range(9)} == {"w-1"}


async def test_where_all_have_just_failed_what_was_lost_before_is_tried_all_the_same() -> None:
    world = ToyFleetWorld()
    await world.up("w-1")
    breaker = world.fleet.vitals.breaker("echo", "cpu", "w-1")
    breaker.failed(breaker.began(0.0), 0.0)

    assert (await world.fleet.placement.place(ECHO, world.pools[0], wary=True)).worker == "w-1"


async def test_an_affinity_leads_to_the_same_worker_until_that_is_too_busy() -> None:
    world = ToyFleetWorld()
    await world.up("w-1", "w-2", "w-3", "w-4")

    [near] = {await placed(world, "session") for _ in range(20)}
    world.fleet.vitals.outstanding["cpu", near] = 50

    assert await placed(world, "session") != near
    assert len({await placed(world, f"session-{n}") for n in range(50)}) == 3


async def test_who_failed_with_the_request_is_left_out() -> None:
    world = ToyFleetWorld()
    await world.up("w-1", "w-2")

    assert await placed(world, avoid=("w-1",)) == "w-2"
    with pytest.raises(EngineUnavailable):
        await placed(world, avoid=("w-1", "w-2"))


async def test_a_worker_that_fails_fast_is_not_the_one_with_the_least_to_do() -> None:
    world = ToyFleetWorld()
    await world.up("w-1", "w-2")
    world.engine.mode["w-1"] = "away"
    await world.ask("w-1")

    assert {await placed(world) for _ in range(6)} == {"w-2"}


async def test_a_worker_whose_breaker_is_open_is_asked_again_only_on_trial() -> None:
    world = ToyFleetWorld()
    await world.up("w-1")
    world.engine.mode["w-1"] = "away"
    for _ in range(3):
        await world.ask("w-1")
    with pytest.raises(EngineUnavailable, match="failing"):
        await placed(world)

    world.tick.advance(1.0)

    assert await placed(world) == "w-1"
    # While others are well no caller is put to the trial.
    await world.up("w-2")
    assert {await placed(world) for _ in range(6)} == {"w-2"}


async def test_a_worker_that_is_only_slow_is_better_than_none() -> None:
    world = ToyFleetWorld()
    await world.up("w-1", "w-2")
    breaker = world.fleet.vitals.breaker("echo", "cpu", "w-1")
    for _ in range(3):
        breaker.failed(breaker.began(0.0), 0.0, mild=True)

    assert {await placed(world) for _ in range(6)} == {"w-2"}
    assert await placed(world, avoid=("w-2",)) == "w-1"


async def test_one_model_of_a_worker_may_fail_and_another_be_well() -> None:
    world = ToyFleetWorld()
    await world.up("w-1")
    world.engine.mode["w-1"] = "broken"
    for _ in range(3):
        await world.ask("w-1", ECHO)

    with pytest.raises(EngineUnavailable):
        await placed(world)
    assert (await world.fleet.placement.place(LLM, world.pools[0])).worker == "w-1"


@pytest.mark.parametrize("was_away_as", [WorkerState.DEGRADED, WorkerState.LOADING, None])
async def test_what_was_held_against_a_worker_is_past_when_it_comes_up_again(
    was_away_as: WorkerState | None,
) -> None:
    world = ToyFleetWorld()
    await world.up("w-1")
    await placed(world)
    world.engine.mode["w-1"] = "away"
    for _ in range(3):
        await world.ask("w-1")

    if was_away_as is None:
        await world.workers.forget("w-1")
    else:
        await world.up("w-1", state=was_away_as, models=())
    with pytest.raises(EngineUnavailable):
        await placed(world)
    await world.up("w-1")

    assert await placed(world) == "w-1"
    assert rank_of(world.fleet.vitals.breaker("echo", "cpu", "w-1"), 0.0) == WELL


async def test_a_worker_that_loads_one_more_model_is_no_better_for_that() -> None:
    world = ToyFleetWorld()
    await world.up("w-1")
    await placed(world)
    world.engine.mode["w-1"] = "away"
    for _ in range(3):
        await world.ask("w-1")

    for state in (WorkerState.LOADING, WorkerState.READY):
        await world.up("w-1", state=state)
        with pytest.raises(EngineUnavailable, match="failing"):
            await placed(world)


async def test_nothing_is_kept_of_workers_that_are_gone() -> None:
    world = ToyFleetWorld()
    await world.up("w-1", "w-2")
    await placed(world)
    for worker in ("w-1", "w-2", "w-2", "w-2"):
        world.engine.mode[worker] = "away"
        await world.ask(worker)
    assert world.fleet.vitals.unwell() == [("echo", "cpu", "w-2")]

    await world.workers.forget("w-2")
    await world.fleet.roster.workers()

    assert world.fleet.vitals.unwell() == []


async def test_the_roster_is_read_anew_only_when_it_is_old_or_known_to_be_wrong() -> None:
    world = ToyFleetWorld()
    clock = FakeClock()
    roster = Roster(world.workers, clock, fresh_s=1.0)
    assert (await roster.crew("echo", "cpu")).ready == ()

    await world.up("w-1")
    assert (await roster.crew("echo", "cpu")).ready == ()
    clock.advance(1.0)
    assert len((await roster.crew("echo", "cpu")).ready) == 1

    await world.up("w-2")
    roster.stale()
    assert len((await roster.crew("echo", "cpu")).ready) == 2


async def test_a_crew_knows_when_the_first_that_starts_should_answer() -> None:
    world = ToyFleetWorld()
    pool = replace(world.pools[0], startup_s=30.0)
    now = world.clock.now
    await world.up("w-1", state=WorkerState.LOADING, models=(), started_at=now - 10)
    await world.up("w-2", state=WorkerState.DOWNLOADING, models=(), started_at=now - 2)

    crew = await world.fleet.roster.crew("echo", "cpu")

    assert (crew.ready, crew.starting) == ((), 2)
    assert crew.starts_in_s(pool, now) == pytest.approx(20.0)
    assert crew.starts_in_s(pool, now + 60) == 0.0
