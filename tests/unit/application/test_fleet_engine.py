"""Calls of workers: watched, judged by size and company, broken off where nothing comes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from synapse.application.call import Calls
from synapse.application.fleet_engine import FleetEngine
from synapse.application.patience import Patience
from synapse.domain.breaker import BreakerState
from synapse.domain.crowding import MIN_ANSWERS
from synapse.domain.errors import (
    EngineError,
    EngineLost,
    EngineTimeout,
    EngineUnavailable,
    InvalidInput,
    Unavailable,
)
from synapse.domain.inference import Completion, Delta
from synapse.domain.job import JobId, SlaTier
from synapse.domain.pool import Pool
from synapse.domain.profile import Profile
from tests.faults import failing_before
from tests.patience import PATIENCE_S
from tests.unit.application.toy_workers import ECHO, LLM, ToyFleetWorld, a_toy_request

HASTY = Patience(min_late_s=0.03)
"""Nothing is waited for longer than 30 ms where it usually comes at once."""


@pytest.fixture(autouse=True, params=["infer", "answer"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever way an item is asked for, the same becomes known of its worker."""
    monkeypatch.setattr(ToyFleetWorld, "way", request.param)


async def used_to(world: ToyFleetWorld, worker: str, delay_s: float = 0.02) -> None:
    """Let a worker answer a few times, so that it is known what is usual."""
    world.engine.delay_s[worker] = delay_s
    for _ in range(10):
        assert isinstance(await world.ask(worker), Completion)
        await world.read(worker)


async def test_answers_come_through_as_they_are_and_are_counted_while_they_come() -> None:
    world = ToyFleetWorld()
    requests = [replace(a_toy_request(), id=JobId(f"r-{n}")) for n in range(3)]
    seen = []

    async for job_id, outcome in world.fleet.engine.infer(ECHO, world.at("w-1"), requests):
        seen.append((job_id, isinstance(outcome, Completion)))
        assert world.fleet.vitals.outstanding == {("cpu", "w-1"): 3}
        assert world.engine.deaf.waiting == 1

    assert world.engine.deaf.waiting == 0
    assert seen == [("r-0", True), ("r-1", True), ("r-2", True)]
    assert not world.fleet.vitals.outstanding
    assert [each async for each in world.fleet.engine.infer(ECHO, world.at("w-1"), [])] == []


async def test_what_calls_took_is_told_for_each_pool() -> None:
    world = ToyFleetWorld()
    await used_to(world, "w-1", delay_s=0.25)

    took = world.fleet.vitals.pool("echo", "cpu").took_ms.quantiles(world.tick.now)

    assert took is not None
    assert (took.count, took.p50, took.p99) == (10, 250.0, 250.0)


async def test_first_tokens_of_better_tiers_are_kept_by_their_company() -> None:
    world = ToyFleetWorld()
    world.engine.delay_s["w-1"] = 0.2
    crowding = world.fleet.vitals.pool("llm", "cpu").crowding

    for _ in range(MIN_ANSWERS):
        async with world.busy("w-1", 3):
            await world.read("w-1", SlaTier.BRONZE)
    assert crowding.most(world.tick.now, 150.0) is None

    for _ in range(MIN_ANSWERS):
        async with world.busy("w-1", 3):
            await world.read("w-1", SlaTier.SILVER)
    assert crowding.most(world.tick.now, 150.0) == 2
    assert crowding.most(world.tick.now, 250.0) == 8


@pytest.mark.parametrize("mode", ["away", "lost", "broken"])
async def test_a_worker_that_fails_opens_its_breaker_and_not_that_of_its_pool(mode: str) -> None:
    world = ToyFleetWorld()
    world.engine.mode["w-1"] = mode

    for _ in range(3):
        assert isinstance(await world.ask("w-1"), EngineError)

    assert world.breaker("w-1").state(0.0) is BreakerState.OPEN
    assert world.breaker("w-2").state(0.0) is BreakerState.CLOSED
    assert world.fleet.vitals.pool("echo", "cpu").breaker.state(0.0) is BreakerState.CLOSED


async def test_a_pool_all_of_whose_workers_fail_opens_its_own() -> None:
    world = ToyFleetWorld()
    for worker in ("w-1", "w-2", "w-3", "w-4"):
        world.engine.mode[worker] = "away"
        for _ in range(3):
            await world.ask(worker)

    assert world.fleet.vitals.pool("echo", "cpu").breaker.state(0.0) is BreakerState.OPEN


async def test_a_worker_that_refuses_an_input_is_well() -> None:
    world = ToyFleetWorld()
    world.engine.mode["w-1"] = "refusing"

    for _ in range(20):
        assert isinstance(await world.ask("w-1"), InvalidInput)

    assert world.breaker("w-1").state(0.0) is BreakerState.CLOSED


async def test_a_worker_that_refuses_everything_is_in_doubt() -> None:
    world = ToyFleetWorld()
    await world.up("w-1", "w-2")
    world.engine.mode["w-1"] = "doubtful"

    for _ in range(3):
        assert isinstance(await world.ask("w-1"), InvalidInput)

    # Others are asked first; but where there are none, it may be the inputs after all.
    place = world.fleet.placement.place
    assert {(await place(ECHO, world.pools[0])).worker for _ in range(5)} == {"w-2"}
    assert (await place(ECHO, world.pools[0], "", {"w-2"})).worker == "w-1"


async def test_one_bad_input_among_good_ones_says_nothing_of_the_worker() -> None:
    world = ToyFleetWorld()
    world.engine.mode["w-1"] = "doubtful"
    for _ in range(5):
        requests = [replace(a_toy_request(), id=JobId(f"r-{n}")) for n in range(2)]
        outcomes = world.fleet.engine.infer(ECHO, world.at("w-1"), requests)
        async with aclosing(outcomes):
            world.engine.mode["w-1"] = "doubtful"
            assert isinstance((await anext(outcomes))[1], InvalidInput)
            world.engine.mode["w-1"] = ""
            assert isinstance((await anext(outcomes))[1], Completion)

    assert world.breaker("w-1").is_closed


@pytest.mark.parametrize(("waited_s", "is_closed"), [(0.04, True), (0.4, False)])
async def test_callers_whose_time_is_up_before_an_answer_count_if_they_had_waited_long(
    waited_s: float, is_closed: bool
) -> None:
    world = ToyFleetWorld()
    await used_to(world, "w-1")
    world.engine.mode["w-1"] = "late"
    world.engine.delay_s["w-1"] = waited_s

    for _ in range(3):
        assert isinstance(await world.ask("w-1"), EngineTimeout)

    assert world.breaker("w-1").is_closed is is_closed
    assert world.breaker("w-1").is_mild is not is_closed


async def test_callers_whose_time_is_up_before_their_turn_say_nothing_of_the_worker() -> None:
    world = ToyFleetWorld()
    await used_to(world, "w-1")
    world.engine.mode["w-1"] = "hung"
    long = [asyncio.create_task(world.ask("w-1")) for _ in range(ECHO.slots)]
    await asyncio.sleep(0.01)

    world.engine.mode["w-1"] = "late"
    world.engine.delay_s["w-1"] = 10.0
    for _ in range(3):
        assert isinstance(await world.ask("w-1"), EngineTimeout)
    assert not world.breaker("w-1").failures_in_a_row

    for task in long:
        task.cancel()
    await asyncio.gather(*long, return_exceptions=True)
    await world.ask("w-1")
    assert world.breaker("w-1").failures_in_a_row


async def test_a_worker_that_never_answers_is_left_where_nothing_but_its_neighbour_tells() -> None:
    """No profile, and too few answers to know what is usual."""
    world = ToyFleetWorld()
    await world.up("w-1", "w-2")
    world.engine.mode["w-1"] = "late"
    world.engine.delay_s = {"w-1": 10.0, "w-2": 1.0}

    outcomes = []
    for _ in range(20):
        world.tick.advance(10.0)
        placed = await world.fleet.placement.place(ECHO, world.pools[0])
        outcomes.append(await world.ask(placed.worker))
    assert [type(each) for each in outcomes].count(EngineTimeout) <= 2

    # Who probes it whatever it did finds the same.
    for _ in range(2):
        await world.ask("w-1")
    assert not world.breaker("w-1").is_closed
    assert world.breaker("w-1").is_mild
    world.engine.mode["w-1"] = ""
    await world.ask("w-1")
    assert world.breaker("w-1").is_closed


async def test_who_waits_for_a_worker_that_is_held_for_ill_by_its_neighbours_waits_no_longer() -> (
    None
):
    world = ToyFleetWorld()
    world.engine.mode["w-1"] = "hung"
    waiting = [asyncio.create_task(world.ask("w-1")) for _ in range(2)]
    other_model = asyncio.create_task(world.ask("w-1", LLM))
    await asyncio.sleep(0.01)

    world.engine.mode["w-1"], world.engine.delay_s["w-1"] = "late", 10.0
    await world.ask("w-2")
    for _ in range(2):
        await world.ask("w-1")
    world.engine.mode["w-1"] = "hung"
    just_come = asyncio.create_task(world.ask("w-1"))
    await asyncio.sleep(0.01)
    assert not any(task.done() for task in waiting)
    world.engine.mode["w-1"] = "late"
    world.engine.delay_s["w-1"] = world.patience.min_late_s / 2
    await world.ask("w-1")
    assert world.breaker("w-1").is_closed, "that one had not waited for long"
    world.engine.delay_s["w-1"] = 10.0
    await world.ask("w-1")

    async with asyncio.timeout(PATIENCE_S):
        outcomes = await asyncio.gather(*waiting, just_come)
    assert {type(outcome) for outcome in outcomes} == {EngineLost}
    assert world.breaker("w-1").is_mild, "where there is no other it is asked"
    assert world.breaker("w-1").failures_in_a_row == 3, "what was broken off was told already"
    # Of another model nobody else was heard.
    assert not other_model.done()
    other_model.cancel()
    await asyncio.gather(other_model, return_exceptions=True)


@pytest.mark.parametrize("neighbour", ["nobody", "as silent", "answered before"])
async def test_who_alone_is_silent_for_long_is_not_told_from_who_needs_long(neighbour: str) -> None:
    world = ToyFleetWorld()
    world.engine.delay_s["w-1"] = 10.0
    if neighbour != "nobody":
        world.engine.mode["w-2"] = "late" if neighbour == "as silent" else ""
        await world.ask("w-2")
        await world.ask("w-1")
    world.engine.mode["w-1"] = "late"

    for _ in range(5):
        assert isinstance(await world.ask("w-1"), EngineTimeout)

    assert not world.breaker("w-1").failures_in_a_row


async def test_a_caller_who_soon_goes_away_says_nothing_of_a_worker_either() -> None:
    world = ToyFleetWorld()
    world.engine.mode["w-1"] = "late"
    world.engine.delay_s["w-1"] = world.patience.min_late_s / 2

    for _ in range(5):
        await world.ask("w-2")
        assert isinstance(await world.ask("w-1"), EngineTimeout)

    assert not world.breaker("w-1").failures_in_a_row


async def test_a_worker_that_came_up_again_is_not_blamed_for_what_its_neighbour_did_before() -> (
    None
):
    world = ToyFleetWorld()
    await world.ask("w-2")
    world.fleet.vitals.renew("w-2")
    world.engine.mode["w-1"], world.engine.delay_s["w-1"] = "late", 10.0

    await world.ask("w-1")

    assert not world.breaker("w-1").failures_in_a_row


async def test_a_stream_that_breaks_off_counts_against_its_worker() -> None:
    world = ToyFleetWorld()
    world.engine.mode["w-1"] = "lost"

    for _ in range(3):
        with pytest.raises(EngineLost):
            await world.read("w-1")

    assert world.breaker("w-1", LLM).state(0.0) is BreakerState.OPEN


async def test_an_open_breaker_is_closed_by_a_probe_that_goes_well() -> None:
    world = ToyFleetWorld()
    world.engine.mode["w-1"] = "away"
    for _ in range(3):
        await world.ask("w-1")

    world.engine.mode["w-1"] = ""
    await world.ask("w-1")

    assert world.breaker("w-1").state(world.tick.now) is BreakerState.CLOSED


async def test_a_worker_that_failed_and_then_answers_slowly_is_asked_where_there_is_no_other() -> (
    None
):
    world = ToyFleetWorld()
    await world.up("w-1")
    await used_to(world, "w-1")
    world.engine.mode["w-1"] = "away"
    for _ in range(3):
        await world.ask("w-1")
    with pytest.raises(EngineUnavailable, match="is failing"):
        await world.fleet.placement.place(ECHO, world.pools[0])

    world.engine.mode["w-1"], world.engine.delay_s["w-1"] = "", 0.2
    await world.ask("w-1")

    assert (await world.fleet.placement.place(ECHO, world.pools[0])).worker == "w-1"


async def test_a_worker_that_is_ten_times_as_slow_as_usual_opens_its_breaker() -> None:
    world = ToyFleetWorld()
    await used_to(world, "w-1")
    await used_to(world, "w-2")

    world.engine.delay_s["w-1"] = 0.2
    for _ in range(3):
        await world.ask("w-1")

    assert world.breaker("w-1").state(world.tick.now) is BreakerState.OPEN
    assert world.breaker("w-1").is_mild
    assert world.breaker("w-2").state(world.tick.now) is BreakerState.CLOSED
    assert world.fleet.vitals.pool("echo", "cpu").breaker.lets_through(world.tick.now)


async def test_a_stream_is_slow_by_its_first_token() -> None:
    world = ToyFleetWorld()
    await used_to(world, "w-1")

    world.engine.delay_s["w-1"] = 0.2
    for _ in range(3):
        await world.read("w-1")

    assert world.breaker("w-1", LLM).state(world.tick.now) is BreakerState.OPEN


async def test_a_worker_is_not_slow_because_this_process_did_not_listen() -> None:
    world = ToyFleetWorld()
    await used_to(world, "w-1")

    world.engine.delay_s["w-1"], world.engine.deaf_s = 0.2, 0.15
    for _ in range(3):
        await world.ask("w-1")
        await world.read("w-1")

    assert world.breaker("w-1").state(world.tick.now) is BreakerState.CLOSED
    assert world.breaker("w-1", LLM).state(world.tick.now) is BreakerState.CLOSED


async def test_without_a_profile_the_first_few_answers_are_not_judged() -> None:
    world = ToyFleetWorld()
    for delay_s in (0.01, 10.0, 10.0, 10.0, 10.0):
        world.engine.delay_s["w-1"] = delay_s
        await world.ask("w-1")

    assert world.breaker("w-1").state(world.tick.now) is BreakerState.CLOSED


async def test_with_a_profile_the_first_answers_are_judged_too() -> None:
    world = ToyFleetWorld()
    await world.profiles.keep(Profile("echo", "1", "cpu", "cpu", base_ms=30.0, spread=1.5))

    for delay_s, state in ((0.13, BreakerState.CLOSED), (0.14, BreakerState.OPEN)):
        world.engine.delay_s["w-1"] = delay_s
        for _ in range(3):
            await world.ask("w-1")
        assert world.breaker("w-1").state(world.tick.now) is state


async def test_a_long_answer_is_not_a_slow_one() -> None:
    world = ToyFleetWorld()
    for _ in range(10):
        world.engine.delay_s["w-1"] = 0.1
        await world.ask("w-1", LLM, max_tokens=10)

    world.engine.delay_s["w-1"] = 5.0
    for _ in range(5):
        await world.ask("w-1", LLM, max_tokens=500)

    assert world.breaker("w-1", LLM).state(world.tick.now) is BreakerState.CLOSED


async def test_samples_are_written_side_by_side_and_not_one_after_the_other() -> None:
    """Eight of 50 tokens tell what one of 50 takes, not what one of 400 does."""
    world = ToyFleetWorld()
    world.engine.delay_s["w-1"] = 1.0
    whole = world.fleet.vitals.pool("llm", "cpu").whole
    for _ in range(10):
        assert isinstance(await world.ask("w-1", LLM, samples=8, max_tokens=50), Completion)
    of_eight = whole.quantiles(world.tick.now)

    for _ in range(3):
        assert isinstance(await world.ask("w-1", LLM, max_tokens=50), Completion)

    assert world.breaker("w-1", LLM).is_closed
    assert of_eight is not None
    assert whole.quantiles(world.tick.now) == replace(of_eight, count=13)


async def test_an_answer_that_had_to_wait_for_its_turn_is_not_a_slow_one() -> None:
    world = ToyFleetWorld()
    await used_to(world, "w-1", delay_s=0.1)

    world.fleet.vitals.outstanding["cpu", "w-1"] = 10 * ECHO.slots
    world.engine.delay_s["w-1"] = 1.0
    for _ in range(3):
        await world.ask("w-1")

    assert world.breaker("w-1").state(world.tick.now) is BreakerState.CLOSED


async def test_what_that_much_company_usually_takes_is_what_is_expected_of_it() -> None:
    world = ToyFleetWorld()
    world.fleet.vitals.outstanding["cpu", "w-1"] = LLM.slots - 1
    await used_to(world, "w-1", delay_s=0.1)

    world.engine.delay_s["w-1"] = 0.1 * LLM.slots
    for _ in range(3):
        await world.ask("w-1", LLM)

    assert world.breaker("w-1", LLM).state(world.tick.now) is BreakerState.OPEN


async def test_many_who_come_at_once_share_the_worker_and_none_is_broken_off() -> None:
    # Slots that share a processor: so many at once take so many times as long as one alone.
    world = ToyFleetWorld(patience=HASTY)
    await used_to(world, "w-1", delay_s=0.01)
    world.engine.mode["w-1"] = "held"

    asked = [asyncio.create_task(world.ask("w-1", LLM)) for _ in range(LLM.slots)]
    await asyncio.sleep(HASTY.min_late_s * 3)
    assert world.breaker("w-1", LLM).state(world.tick.now) is BreakerState.CLOSED
    world.engine.release.set()
    outcomes = await asyncio.gather(*asked)

    assert {type(outcome) for outcome in outcomes} == {Completion}


async def test_who_waits_for_a_slot_is_not_broken_off_while_others_are_answered() -> None:
    late_s = 0.3  # more than this process is held up for
    world = ToyFleetWorld(patience=Patience(min_late_s=late_s))
    await used_to(world, "w-1", delay_s=0.0)
    world.engine.mode["w-1"] = "hung"
    waiting = [asyncio.create_task(world.ask("w-1", LLM)) for _ in range(LLM.slots + 4)]
    await asyncio.sleep(0)

    world.engine.mode["w-1"] = ""
    enough_at = asyncio.get_running_loop().time() + 3 * late_s
    while asyncio.get_running_loop().time() < enough_at:
        assert isinstance(await world.ask("w-1", LLM), Completion)
        await asyncio.sleep(late_s / 100)
    assert world.breaker("w-1", LLM).is_closed
    assert not any(task.done() for task in waiting)

    # From now on nobody hears of it any more.
    async with asyncio.timeout(PATIENCE_S):
        assert {type(outcome) for outcome in await asyncio.gather(*waiting)} == {EngineLost}


async def test_who_waits_behind_long_work_is_not_late_as_long_as_that_is_not() -> None:
    world = ToyFleetWorld(patience=HASTY)
    await used_to(world, "w-1", delay_s=0.002)
    world.engine.mode["w-1"] = "hung"
    long = [
        asyncio.create_task(world.ask("w-1", LLM, max_tokens=100_000)) for _ in range(LLM.slots)
    ]
    await asyncio.sleep(0)

    short = [asyncio.create_task(world.ask("w-1", LLM, max_tokens=1)) for _ in range(4)]
    await asyncio.sleep(HASTY.min_late_s * 10)
    assert world.breaker("w-1", LLM).is_closed

    long.pop().cancel()
    async with asyncio.timeout(PATIENCE_S):
        assert {type(outcome) for outcome in await asyncio.gather(*short)} == {EngineLost}
    assert not any(task.done() for task in long)
    for task in long:
        task.cancel()


async def test_who_waits_for_a_slot_of_a_worker_that_hangs_is_broken_off_with_the_others() -> None:
    late_s = 0.4
    world = ToyFleetWorld(patience=Patience(min_late_s=late_s))
    await used_to(world, "w-1", delay_s=0.0)
    world.engine.mode["w-1"] = "hung"
    first = [asyncio.create_task(world.ask("w-1", LLM)) for _ in range(LLM.slots)]
    waiting = asyncio.create_task(world.ask("w-1", LLM))
    # It is heard of once more: when `waiting` looks first, those before it are not late.
    await asyncio.sleep(late_s / 2)
    world.engine.mode["w-1"] = ""
    await world.ask("w-1", LLM)

    async with asyncio.timeout(PATIENCE_S):
        assert {type(outcome) for outcome in await asyncio.gather(*first)} == {EngineLost}
        for _ in range(100):
            await asyncio.sleep(0)
    assert waiting.done()
    assert isinstance(await waiting, EngineLost)


async def test_a_new_profile_begins_the_count_of_what_was_expected_anew() -> None:
    world = ToyFleetWorld()
    await used_to(world, "w-1")
    assert world.fleet.vitals.pool("echo", "cpu").live(world.tick.now).whole is not None

    await world.profiles.keep(Profile("echo", "1", "cpu", "cpu", base_ms=20.0, measured_at=9.0))
    await world.ask("w-1")

    live = world.fleet.vitals.pool("echo", "cpu").live(world.tick.now).whole
    assert live is not None
    assert live.count == 1
    assert live.p50 == pytest.approx(1.0)


async def test_calls_of_a_hung_worker_are_broken_off_once_there_were_enough() -> None:
    world = ToyFleetWorld(patience=HASTY)
    await used_to(world, "w-1", delay_s=0.0)
    world.engine.mode["w-1"] = "hung"

    async with asyncio.timeout(PATIENCE_S):
        outcomes = await asyncio.gather(*(world.ask("w-1") for _ in range(5)))

    assert [type(outcome) for outcome in outcomes] == [EngineLost] * 5
    assert world.breaker("w-1").state(world.tick.now) is BreakerState.OPEN
    assert not world.breaker("w-1").is_mild
    assert world.engine.running["w-1"] == 0


async def test_a_lone_call_of_a_hung_worker_is_broken_off_too() -> None:
    world = ToyFleetWorld(patience=HASTY)
    await used_to(world, "w-1", delay_s=0.0)
    world.engine.mode["w-1"] = "hung"

    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(EngineUnavailable, match="does not answer"):
            await world.read("w-1")

    assert world.breaker("w-1", LLM).state(world.tick.now) is BreakerState.OPEN


async def test_a_call_from_before_anything_was_known_is_broken_off_once_something_is() -> None:
    world = ToyFleetWorld(patience=HASTY)
    world.engine.mode["w-1"] = "hung"
    asked = asyncio.create_task(world.ask("w-1"))
    read = asyncio.create_task(world.read("w-1"))
    await asyncio.sleep(5 * HASTY.min_late_s)
    assert not asked.done(), "it may be that everything takes so long"
    assert not read.done()

    await used_to(world, "w-2", delay_s=0.0)

    async with asyncio.timeout(PATIENCE_S):
        assert isinstance(await asked, EngineLost)
        with pytest.raises(EngineUnavailable, match="does not answer"):
            await read
    assert world.breaker("w-1").state(world.tick.now) is BreakerState.OPEN
    assert world.breaker("w-2").state(world.tick.now) is BreakerState.CLOSED


async def test_a_call_from_before_a_profile_is_not_held_against_what_was_measured_by_it() -> None:
    world = ToyFleetWorld(patience=HASTY)
    world.engine.mode["w-1"] = "held"
    asked = asyncio.create_task(world.ask("w-1"))
    await asyncio.sleep(0)
    await world.profiles.keep(Profile("echo", "1", "cpu", "cpu", base_ms=9e6, measured_at=9.0))

    await used_to(world, "w-2", delay_s=0.0)
    await asyncio.sleep(5 * HASTY.min_late_s)

    world.engine.release.set()
    assert isinstance(await asked, Completion)
    assert world.breaker("w-1").state(world.tick.now) is BreakerState.CLOSED


async def test_a_generation_that_stops_in_the_middle_is_broken_off() -> None:
    world = ToyFleetWorld(patience=HASTY)
    await used_to(world, "w-1", delay_s=0.0)
    world.engine.mode["w-1"] = "stuck"
    texts = []

    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(EngineLost):
            async for delta in world.fleet.engine.stream(LLM, world.at("w-1"), a_toy_request()):
                texts.append(delta.text)

    assert texts == ["a"]


async def test_a_reader_that_takes_its_time_is_no_hung_worker() -> None:
    world = ToyFleetWorld(patience=HASTY)
    await used_to(world, "w-1", delay_s=0.0)
    texts = []

    async for delta in world.fleet.engine.stream(LLM, world.at("w-1"), a_toy_request()):
        await asyncio.sleep(HASTY.min_late_s * 5)
        texts.append(delta.text)

    assert texts == ["a", ""]
    assert world.breaker("w-1", LLM).state(world.tick.now) is BreakerState.CLOSED


async def test_calls_of_a_worker_that_was_declared_dead_are_broken_off_at_once() -> None:
    world = ToyFleetWorld()
    world.engine.mode.update({"w-1": "hung", "w-2": "stuck"})
    asked = asyncio.create_task(world.ask("w-1"))
    read = asyncio.create_task(world.read("w-2"))
    await asyncio.sleep(0.01)

    assert world.fleet.engine.break_off("w-1", "is dead") == 1
    assert world.fleet.engine.break_off("w-2", "is dead") == 1
    assert world.fleet.engine.break_off("w-3", "is dead") == 0

    async with asyncio.timeout(PATIENCE_S):
        outcome = await asked
        with pytest.raises(EngineLost, match="is dead"):
            await read
    assert isinstance(outcome, EngineLost)
    assert not world.fleet.vitals.outstanding


async def test_what_a_worker_has_that_is_taken_away_is_not_lost() -> None:
    world = ToyFleetWorld()
    world.engine.mode.update({"w-1": "hung", "w-2": "stuck"})
    asked = asyncio.create_task(world.ask("w-1"))
    read = asyncio.create_task(world.read("w-2"))
    await asyncio.sleep(0.01)

    for worker in ("w-1", "w-2"):
        assert world.fleet.engine.break_off(worker, "is taken away", is_lost=False) == 1

    async with asyncio.timeout(PATIENCE_S):
        outcome = await asked
        with pytest.raises(EngineUnavailable, match="is taken away"):
            await read
    assert isinstance(outcome, EngineUnavailable)
    assert world.breaker("w-1").failures_in_a_row == 0, "nothing is the matter with it"
    assert not world.fleet.vitals.outstanding


async def test_a_call_that_is_broken_off_while_its_reader_is_busy_ends_when_it_reads_on() -> None:
    world = ToyFleetWorld()
    deltas = world.fleet.engine.stream(LLM, world.at("w-1"), a_toy_request())
    async with aclosing(deltas):
        assert (await anext(deltas)).text == "a"
        world.fleet.engine.break_off("w-1", "is dead")
        await asyncio.sleep(0.01)

        with pytest.raises(EngineLost):
            await anext(deltas)


async def test_a_caller_that_goes_away_says_nothing_of_the_worker_and_ends_its_work() -> None:
    world = ToyFleetWorld()
    world.engine.mode["w-1"] = "hung"
    for _ in range(5):
        asked = asyncio.create_task(world.ask("w-1"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert world.engine.running["w-1"] == 1
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    assert world.engine.running["w-1"] == 0
    assert world.breaker("w-1").state(0.0) is BreakerState.CLOSED
    assert not world.fleet.vitals.outstanding
    assert world.engine.deaf.waiting == 0


async def test_a_profile_that_cannot_be_read_stops_no_call() -> None:
    world = ToyFleetWorld()
    profiles = failing_before(world.profiles, profile=[Unavailable("the store is away")])
    engine = FleetEngine(world.engine, Calls(world.fleet.vitals, profiles))

    outcomes = engine.infer(ECHO, world.at("w-1"), [a_toy_request()])

    assert [type(outcome) async for _, outcome in outcomes] == [Completion]


async def test_deltas_are_handed_on_unchanged() -> None:
    world = ToyFleetWorld()

    deltas = [d async for d in world.fleet.engine.stream(LLM, world.at("w-1"), a_toy_request())]

    assert deltas == [Delta("a", 1, 1), Delta("", 1, 0, "stop")]


async def test_a_fixed_pool_has_a_breaker_of_its_own() -> None:
    pool = Pool("own", "cpu", endpoint="10.0.0.1:8001")
    world = ToyFleetWorld([pool])
    world.engine.mode[""] = "away"

    for _ in range(3):
        async for _outcome in world.fleet.engine.infer(ECHO, pool, [a_toy_request()]):
            pass

    assert world.fleet.vitals.breaker("echo", "own", "").state(0.0) is BreakerState.OPEN
