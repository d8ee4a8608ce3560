"""What comes when no worker is up is taken, has one started, and is told how long that takes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import replace

import pytest

from synapse.application.cold_start import ColdStart
from synapse.application.direct import DirectRequest
from synapse.application.intake import SubmitJob
from synapse.application.on_demand import load_of
from synapse.application.roster import Roster
from synapse.domain.errors import Unavailable
from synapse.domain.inference import TOKEN_IDS, ModelInput
from synapse.domain.job import JobState, SlaTier
from synapse.domain.model import ServiceSample
from synapse.domain.worker import WorkerState
from tests.factories import NOW, a_pool, a_worker
from tests.faults import failing_before
from tests.unit.application.cold_world import ECHO, GOLD, ColdWorld, a_fleet_pool


def a_request(timeout_s: float = 30.0) -> DirectRequest:
    """A caller waits on the line."""
    return DirectRequest("r-1", "echo", ModelInput(prompt="hello"), timeout_s)


def a_rate(slot_s: float) -> ServiceSample:
    """An item took so long in the CPU pool."""
    return ServiceSample("echo", "cpu", 1, slot_s)


async def test_with_a_worker_up_nothing_is_cold_and_nobody_is_woken() -> None:
    world = ColdWorld()
    await world.workers.beat(a_worker())

    assert await world.cold_starts.arrived(ECHO, GOLD) is None

    assert world.waker.woken == []
    assert await world.arrived() > 0


@pytest.mark.parametrize("why", [RuntimeError("a bug"), asyncio.CancelledError()])
async def test_who_does_not_get_beyond_waking_the_autoscaler_keeps_no_seat(
    why: BaseException,
) -> None:
    world = ColdWorld()
    world.cold_starts = failing_before(world.cold_starts, wake=[why])

    with pytest.raises(type(why)):
        await world.direct.begin(a_request())

    assert world.slots.in_flight("echo") == 0


async def test_a_pool_that_runs_elsewhere_is_always_up() -> None:
    world = ColdWorld(a_fleet_pool("gpu"), a_pool("cpu"))

    assert await world.cold_starts.arrived(ECHO, GOLD) is None


async def test_at_zero_the_autoscaler_is_woken_and_the_wait_is_that_of_a_start() -> None:
    world = ColdWorld()

    cold = await world.cold_starts.arrived(ECHO, GOLD)

    assert cold == ColdStart("cpu", 20.0)
    assert world.waker.woken == ["echo"]


async def test_a_worker_whose_engine_lacks_what_is_required_is_not_up_for_it() -> None:
    vllm = a_fleet_pool("gpu", startup_s=5.0, extensions=frozenset())
    world = ColdWorld(vllm, a_fleet_pool("cpu", price_per_hour_usd=9.0))
    await world.workers.beat(a_worker(pool="gpu"))

    assert await world.cold_starts.of(ECHO, GOLD) is None
    assert await world.cold_starts.of(ECHO, replace(GOLD, requires=TOKEN_IDS)) == ColdStart(
        "cpu", 20.0
    )


async def test_a_start_takes_as_long_as_the_last_ones_took() -> None:
    world = ColdWorld()
    await world.starts.started("cpu", 32.0)

    assert await world.cold_starts.of(ECHO, GOLD) == ColdStart("cpu", 32.0)


async def test_where_a_worker_loads_models_on_demand_the_wait_is_that_of_a_load() -> None:
    world = ColdWorld(a_fleet_pool(loads_on_demand=True))
    await world.starts.started(load_of("cpu", "echo"), 3.0)
    assert await world.cold_starts.arrived(ECHO, GOLD) == ColdStart("cpu", 20.0)

    await world.workers.beat(a_worker(models=(), state=WorkerState.IDLE))

    assert await world.cold_starts.arrived(ECHO, GOLD) == ColdStart("cpu", 3.0)


async def test_of_a_start_under_way_what_is_left_counts() -> None:
    world = ColdWorld(a_fleet_pool("gpu", startup_s=300.0), a_fleet_pool())
    loading = a_worker(state=WorkerState.LOADING, models=(), started_at=NOW, lease_until=NOW + 99)
    await world.workers.beat(loading)
    await world.starts.started("cpu", 30.0)
    world.clock.advance(12.0)

    assert await world.cold_starts.of(ECHO, GOLD) == ColdStart("cpu", 18.0)
    world.clock.advance(60.0)
    assert await world.cold_starts.of(ECHO, GOLD) == ColdStart("cpu", 1.0)


async def test_that_the_workers_cannot_be_read_is_no_reason_to_refuse_anybody() -> None:
    world = ColdWorld()
    world.roster = Roster(
        failing_before(world.workers, workers=[Unavailable("no")]), world.clock, fresh_s=0.0
    )
    starts = replace(world.cold_starts, roster=world.roster)

    assert await starts.arrived(ECHO, GOLD) is None


async def test_a_job_at_zero_is_accepted_and_told_of_the_cold_start_while_it_waits() -> None:
    world = ColdWorld()
    await world.registry.record_service(a_rate(2.0), world.clock())

    accepted = await world.accepted()
    waiting = await world.results.get(accepted.job.id, "default")
    await world.workers.beat(a_worker())
    up = await world.results.get(accepted.job.id, "default")

    assert (accepted.is_cold, accepted.estimated_wait_s) == (True, 20.0)
    assert world.waker.woken == ["echo"]
    assert waiting.cold == ColdStart("cpu", 20.0)
    assert up.cold is None


async def test_the_wait_behind_others_comes_on_top_of_the_start() -> None:
    world = ColdWorld()
    await world.registry.record_service(a_rate(2.0), world.clock())
    for _ in range(8):
        await world.accepted()

    # 8 ahead, two seconds each, in 8 slots.
    assert (await world.accepted()).estimated_wait_s == 22.0


async def test_the_queue_drains_as_fast_as_all_workers_that_are_up_work() -> None:
    world = ColdWorld(a_fleet_pool(), a_fleet_pool("gpu", slots={"echo": 24}))
    await world.registry.record_service(a_rate(2.0), world.clock())
    await world.workers.beat(a_worker("w-1"))
    await world.workers.beat(a_worker("w-2", pool="gpu"))
    for _ in range(8):
        await world.accepted()

    # 8 ahead, two seconds each, in 8 + 24 slots.
    assert (await world.accepted()).estimated_wait_s == 0.5


async def test_a_job_that_was_sent_again_under_its_key_arrives_once() -> None:
    world = ColdWorld()
    command = SubmitJob(
        "echo", ModelInput(prompt="x"), sla=SlaTier.GOLD, idempotency_key="the-same"
    )

    await world.submitter.submit(command)
    again = await world.submitter.submit(command)

    assert again.is_cold
    assert await world.arrived() == pytest.approx(1 / 5)


async def test_the_time_of_a_job_that_found_no_worker_is_told_apart() -> None:
    world = ColdWorld()
    await world.accepted()
    world.clock.advance(10.0)
    await world.accepted()
    world.clock.advance(15.0)
    await world.workers.beat(a_worker(started_at=NOW + 5, lease_until=NOW + 999))
    await world.work()
    await world.accepted()
    world.clock.advance(1.0)
    await world.work()

    assert world.telemetry.of("cold_started") == [("echo", "cpu", 25.0), ("echo", "cpu", 15.0)]


async def test_a_job_that_came_to_another_process_is_known_by_the_age_of_the_workers() -> None:
    world = ColdWorld()
    job = await world.submit()
    elsewhere = replace(world.cold_starts, _told=OrderedDict())
    await world.workers.beat(a_worker(started_at=NOW + 5, lease_until=NOW + 999))
    ended = replace(job, state=JobState.COMPLETED, finished_at=NOW + 25.0)

    await elsewhere.job_ended(replace(ended, created_at=NOW + 5.0))
    assert world.telemetry.of("cold_started") == []
    await elsewhere.job_ended(ended)
    assert world.telemetry.of("cold_started") == [("echo", "", 25.0)]


async def test_a_request_at_zero_wakes_and_is_answered_once_a_worker_is_up() -> None:
    world = ColdWorld()
    waiting = asyncio.create_task(world.direct.run(a_request()))
    while not world.slept_s and not waiting.done():
        await asyncio.sleep(0)
    woken = list(world.waker.woken)

    await world.workers.beat(a_worker(lease_until=NOW + 999))
    world.clock.advance(1.0)
    await waiting

    assert woken == ["echo"]
    [(model, pool, seconds)] = world.telemetry.of("cold_started")
    assert (model, pool) == ("echo", "cpu")
    assert seconds > 0


async def test_a_crowd_that_comes_at_zero_is_held_and_not_refused() -> None:
    world = ColdWorld()

    generations = [await world.direct.begin(a_request()) for _ in range(300)]

    assert await world.slots.count("echo", "cpu") == 300
    for generation in generations:
        await generation.aclose()


async def test_who_cannot_wait_for_the_worker_is_told_when_it_will_be_there() -> None:
    world = ColdWorld(a_fleet_pool(startup_s=50.0))

    with pytest.raises(Unavailable) as refused:
        await world.direct.run(a_request(timeout_s=0.05))

    assert refused.value.retry_after_s == 50
    assert world.telemetry.of("cold_started") == []
