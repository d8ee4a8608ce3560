"""Batches whose jobs are let in as there is room: what becomes of those that find none at first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import suppress
from typing import Any

import pytest

from synapse.application.batch_receipts import LONG_S
from synapse.application.entrance import LOOK_EVERY_S, WAIT_S, Entrance
from synapse.application.waiting import WaitingPlaces
from synapse.domain.errors import EngineFull, EngineLost, EngineUnavailable, Unavailable
from synapse.domain.inference import ModelInput
from synapse.domain.job import Failure, Job, JobId, JobState, SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.receipt import receipt_of
from synapse.ports import InferenceRequest
from tests.factories import a_batch, a_model, a_pool, a_sample
from tests.fakes import Answer, MemoryRegistry, ScriptedEngine
from tests.faults import failing_before
from tests.unit.application.going import Going
from tests.unit.application.world import World

SLOTS = 4
MODEL = a_model("echo", slots=SLOTS)
POOL = a_pool("cpu", price_per_hour_usd=3.6)
BRIEF_S = 0.05


class Engine(ScriptedEngine):
    """Takes so long for everything it is asked together, and notes what that was."""

    def __init__(self, house: FullHouse, seconds: float = 0.1) -> None:
        super().__init__()
        self.house, self.seconds, self.together = house, seconds, list[int]()

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Answer], None]:
        self.together.append(len(requests))
        self.house.world.clock.advance(self.seconds)
        async for outcome in super().infer(model, pool, requests):
            yield outcome


class FullHouse:
    """A runner at a pool of four slots; so many are taken, and come free at the looks named."""

    def __init__(self, taken: int = SLOTS, frees: dict[int, int] | None = None) -> None:
        self.frees, self.looks = frees or {}, 0
        registry = MemoryRegistry([MODEL], [POOL])
        self.world = world = World(registry=registry, engine=Engine(self))
        world.slots.occupy("echo", "cpu", taken)
        self.others = taken
        self.use(world.slots)

    def use(self, in_flight: object) -> None:
        """Let in by these counts."""
        world = self.world
        world.runner.entrance = Entrance(
            world.fleet.windows,
            in_flight,  # type: ignore[arg-type]
            WaitingPlaces(world.fleet.windows, in_flight, world.registry, world.clock),  # type: ignore[arg-type]
            world.clock,
            self.sleep,
        )

    async def measured(self) -> FullHouse:
        """The same, where items are over in a moment."""
        sample = a_sample(10, 10 * BRIEF_S, pool="cpu")
        await self.world.registry.record_service(sample, self.world.clock())
        return self

    async def sleep(self, seconds: float) -> None:
        if self.world.slots.in_flight("echo", "cpu") > self.others:
            await asyncio.sleep(0)  # the engine says how long it takes
            return
        self.looks += 1
        self.world.clock.advance(seconds)
        freed = self.frees.get(self.looks, 0)
        self.others -= freed
        self.world.slots.free("echo", "cpu", freed)
        await asyncio.sleep(0)

    async def submit(self, number: int = 1, **changes: object) -> list[Job]:
        jobs = [await self.world.submit(f"job {n}", **changes) for n in range(number)]
        self.world.queue.take()
        return jobs

    async def run(self, jobs: Sequence[Job], batch_id: str = "batch-1", **changes: Any) -> None:
        """Whatever comes of it, no slot is held any more, and nobody waits."""
        batch = a_batch(*(job.id for job in jobs), id=batch_id, **changes)
        try:
            await self.world.runner.run(batch, POOL)
        finally:
            assert self.world.slots.in_flight("echo", "cpu") == self.others
            assert self.world.slots.in_flight("echo", "cpu#waiting") == 0

    def told(self) -> list[tuple[int, int]]:
        """Of each batch that came back, how many jobs it ran and how many engines failed at."""
        told = self.world.telemetry.of("batch_ran")
        return [(len(batch.job_ids), errors) for batch, _, _, errors in told]

    @property
    def states(self) -> list[JobState]:
        return list(self.world.states().values())


async def test_jobs_for_which_there_is_no_slot_stay_in_their_queue() -> None:
    """Nobody runs them: neither callers nor the autoscaler are to be told so."""
    house = FullHouse()
    [job] = await house.submit()

    with pytest.raises(EngineUnavailable, match="is full"):
        await house.run([job])

    assert house.world.store.jobs[job.id] == job
    assert not house.world.telemetry.of("batch_ran")


async def test_a_batch_is_run_as_far_as_there_are_slots_and_the_rest_when_it_comes_again() -> None:
    house = FullHouse(taken=2)
    jobs = await house.submit(3)

    with pytest.raises(EngineUnavailable, match="has no slots for all"):
        await house.run(jobs)

    assert house.states == [JobState.COMPLETED] * 2 + [JobState.QUEUED]
    await house.run(jobs)
    assert house.states == [JobState.COMPLETED] * 3
    assert house.told() == [(2, 0), (1, 0)]


async def test_of_jobs_of_several_samples_as_many_are_claimed_as_have_slots_for_all() -> None:
    house = FullHouse(taken=1)
    jobs = await house.submit(3, input=ModelInput("x", samples=2))

    with pytest.raises(EngineUnavailable, match="has no slots for all"):
        await house.run(jobs, items=(2, 2, 2))

    # The second has its turn with the last slot; the third was not taken out of its queue.
    assert house.states == [JobState.COMPLETED] * 2 + [JobState.QUEUED]
    assert [job.sends for job in house.world.store.jobs.values()] == [1, 1, 1]


async def test_a_job_of_more_samples_than_are_ever_free_at_once_is_run() -> None:
    house = FullHouse(taken=SLOTS - 1)
    jobs = await house.submit(input=ModelInput("x", samples=SLOTS))

    await house.run(jobs, items=(SLOTS,))

    assert house.states == [JobState.COMPLETED]


@pytest.mark.parametrize("seconds", [LONG_S, LONG_S + 1])
async def test_nobody_is_tried_again_in_an_execution_behind_who_is_long_at_his_worker(
    seconds: float,
) -> None:
    """Four of them, one after the other, outlast the execution, and the others' message with it."""
    house = FullHouse(taken=SLOTS - 1)
    house.world.runner.engine = Engine(house, seconds)
    jobs = await house.submit(3)

    with pytest.raises(EngineUnavailable, match="has no slots for all") as raised:
        await house.run(jobs)

    assert house.states == [JobState.COMPLETED] + [JobState.QUEUED] * 2
    assert isinstance(raised.value, EngineFull) == (seconds > LONG_S)


async def test_where_items_are_brief_the_rest_waits_and_is_let_in_as_slots_come_free() -> None:
    house = await FullHouse(frees={2: 2, 4: 1}).measured()
    jobs = await house.submit(5)

    await house.run(jobs)

    assert house.states == [JobState.COMPLETED] * 5
    assert isinstance(house.world.engine, Engine)
    assert house.world.engine.together[0] == 2
    assert sum(house.world.engine.together) == 5
    assert [each.losses for each in house.world.store.jobs.values()] == [0] * 5


async def test_what_waited_is_told_as_waiting_and_paid_by_nobody() -> None:
    house = await FullHouse(frees={20: 1}).measured()
    [job] = await house.submit()

    await house.run([job])

    receipt = receipt_of(await house.world.job(job.id))
    assert receipt is not None
    assert receipt.queue_ms == pytest.approx(20 * 1000 * LOOK_EVERY_S)
    assert receipt.inference_ms == pytest.approx(100)
    # A tenth of a second of one of four slots, at a tenth of a cent a second.
    assert receipt.cost.active_usd == pytest.approx(0.001 * 0.1 / SLOTS)
    rate = await house.world.registry.service_rate("echo", house.world.clock() + 60, "cpu")
    assert rate.seconds_per_item == pytest.approx((10 * BRIEF_S + 0.1) / 11)


async def test_a_wait_at_the_engine_is_no_slot_time() -> None:
    """Better tiers are let in however many are there: this one after two turns of four."""
    house = FullHouse(taken=2 * SLOTS)
    house.world.runner.engine = Engine(house, seconds=0.9)
    [job] = await house.submit()

    await house.run([job], sla=SlaTier.SILVER)

    rate = await house.world.registry.service_rate("echo", house.world.clock(), "cpu")
    assert rate.seconds_per_item == pytest.approx(0.9 * SLOTS / (2 * SLOTS + 1))


async def test_turns_are_paid_by_the_slots_that_there_are() -> None:
    """Four ran after the other four: each had a quarter of the worker in its turn, no eighth."""
    house = await FullHouse(frees={1: SLOTS}).measured()
    jobs = await house.submit(2 * SLOTS)

    await house.run(jobs)

    receipts = [receipt_of(job) for job in house.world.store.jobs.values()]
    active = [receipt.cost.active_usd for receipt in receipts if receipt]
    assert active == pytest.approx([0.001 * 0.1 / SLOTS] * 2 * SLOTS)


async def test_who_expires_while_it_waits_ends_so_and_the_engine_is_not_asked() -> None:
    house = await FullHouse(frees={10: 1}).measured()
    [job] = await house.submit(timeout_s=6 * LOOK_EVERY_S)

    await house.run([job])

    ended = await house.world.job(job.id)
    assert ended.state is JobState.EXPIRED
    assert (ended.started_at, receipt_of(ended)) == (None, None)
    assert house.world.telemetry.of("batch_ran")[0][3] == 0


@pytest.mark.parametrize("frees", [{10: 1}, {}])
async def test_who_expires_while_it_waits_ends_then_and_not_when_its_turn_would_be(
    frees: dict[int, int],
) -> None:
    """Whoever else sees it first, RUNNING, counts it as wholly used."""
    house = await FullHouse(frees=frees).measured()
    [short] = await house.submit(timeout_s=5.5 * LOOK_EVERY_S)
    [other] = await house.submit()

    with suppress(EngineUnavailable):
        await house.run([short, other])

    ended, left = await house.world.job(short.id), await house.world.job(other.id)
    assert (ended.state, ended.started_at) == (JobState.EXPIRED, None)
    assert ended.finished_at == pytest.approx(ended.deadline_at, abs=2 * LOOK_EVERY_S)
    assert left.state is (JobState.COMPLETED if frees else JobState.QUEUED)
    assert isinstance(house.world.engine, Engine)
    assert sum(house.world.engine.together) == len(frees)


async def test_who_waited_has_so_much_less_time_at_the_engine() -> None:
    house = await FullHouse(frees={10: 1}).measured()
    [job] = await house.submit(timeout_s=10.0)

    await house.run([job])

    [(_, _, (request,))] = house.world.engine.calls
    assert request.timeout_s == pytest.approx(10.0 - 10 * LOOK_EVERY_S)


async def test_who_waited_in_vain_is_queued_until_it_is_tried_again() -> None:
    house = await FullHouse().measured()
    jobs = await house.submit(2)

    with pytest.raises(EngineUnavailable, match="is full"):
        await house.run(jobs)

    assert house.looks == pytest.approx(WAIT_S / LOOK_EVERY_S, abs=1)
    assert house.states == [JobState.QUEUED] * 2
    assert house.told() == []
    house.frees = {house.looks + 1: SLOTS}
    await house.run(jobs)
    [(_, _, seconds, _)] = house.world.telemetry.of("batch_ran")
    assert seconds == pytest.approx(0.1)
    assert house.states == [JobState.COMPLETED] * 2
    assert [job.losses for job in house.world.store.jobs.values()] == [0, 0]


async def test_who_was_claimed_in_vain_began_when_it_was_let_in_at_last() -> None:
    house = await FullHouse().measured()
    [job] = await house.submit()
    with pytest.raises(EngineUnavailable):
        await house.run([job])
    house.world.slots.free("echo", "cpu", SLOTS)
    house.others = 0

    await house.run([job])

    receipt = receipt_of(await house.world.job(job.id))
    assert receipt is not None
    assert receipt.queue_ms == pytest.approx(1000 * WAIT_S, rel=0.02)
    assert receipt.inference_ms == pytest.approx(100)


async def test_who_waits_while_the_last_worker_goes_is_tried_elsewhere() -> None:
    house = await FullHouse().measured()
    jobs = await house.submit(2)
    windows: Any = Going(house.world.fleet.windows, looks=3)
    entrance = house.world.runner.entrance
    assert entrance is not None
    house.world.runner.entrance = Entrance(
        windows, entrance.in_flight, entrance.places, entrance.clock, entrance.sleep
    )

    with pytest.raises(EngineUnavailable, match="no worker of pool"):
        await house.run(jobs)

    assert house.world.engine.calls == []


async def test_who_waited_while_a_worker_was_lost_with_others_has_lost_none() -> None:
    def lost(request: InferenceRequest) -> Answer:
        return EngineLost("the worker is gone")

    house = await FullHouse(taken=SLOTS - 1).measured()
    house.world.runner.engine = ScriptedEngine(lost)
    jobs = await house.submit(3)
    batch = a_batch(*(job.id for job in jobs))

    with pytest.raises(EngineLost) as raised:
        await house.world.runner.run(batch, POOL)
    failure = Failure(raised.value.code, raised.value.message)
    await house.world.give_back(batch.id, batch.job_ids, failure, lost=True)

    after = [await house.world.job(job.id) for job in jobs]
    assert [job.state for job in after] == [JobState.QUEUED] * 3
    assert sorted(job.losses for job in after) == [0, 0, 1]
    assert len(house.world.queue.take()) == 3


async def test_where_the_slots_cannot_be_counted_the_batch_is_run() -> None:
    house = FullHouse()
    jobs = await house.submit(2)
    house.use(failing_before(house.world.slots, enter=[Unavailable("no table")] * 9))
    house.world.slots.free("echo", "cpu", SLOTS)
    house.others = 0

    await house.run(jobs)

    assert house.states == [JobState.COMPLETED] * 2


async def test_better_tiers_wait_for_nobody() -> None:
    house = await FullHouse().measured()
    [job] = await house.submit(sla=SlaTier.SILVER)

    await house.world.runner.run(a_batch(job.id, sla=SlaTier.SILVER), POOL)

    assert (house.states, house.looks) == ([JobState.COMPLETED], 0)


async def test_bronze_that_is_refused_goes_back_to_its_queue_and_has_lost_no_worker() -> None:
    house = FullHouse()
    job = await house.world.submit("one")

    for _ in range(5):
        await house.world.work()

    again = await house.world.job(job.id)
    assert (again.state, again.losses) == (JobState.QUEUED, 0)
    assert house.world.engine.calls == []
    # Between any two turns there are the batcher's pauses: nothing spins.
    assert len(house.world.slept_s) == 5 * 2


async def test_samples_of_one_prompt_are_let_in_together() -> None:
    house = await FullHouse(frees={1: 1, 2: 1, 3: 1}).measured()
    value = ModelInput("x", samples=3)
    [job] = await house.submit(input=value)

    await house.run([job])

    assert (house.states, house.looks) == ([JobState.COMPLETED], 3)
