"""Two drivers of one batch: what the slower one does beside the other has no effect."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Mapping
from typing import Any

import pytest

from synapse.domain.access import Principal
from synapse.domain.errors import Unavailable
from synapse.domain.file_batch import FileBatchStatus
from synapse.domain.job import JobState
from synapse.ports.file_batches import LineRequest
from tests.fake_file_batches import PlainCodec
from tests.faults import failing_before
from tests.unit.batches.batch_world import BatchWorld, a_line
from tests.unit.batches.test_advance_chaos import Chaotic
from tests.unit.batches.test_batch_limits import KEY, LimitedWorld

LINES = 15


class Held(PlainCodec):
    """The first driver is held at one of its lines, as by a slow answer of what is elsewhere."""

    def __init__(self, at: int) -> None:
        self.left = at
        self.is_held, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def parse(self, endpoint: str, body: Mapping[str, Any], caller: Principal) -> LineRequest:
        self.left -= 1
        if self.left == 0:
            self.is_held.set()
            await self.may_go_on.wait()
        return await super().parse(endpoint, body, caller)


async def beside(world: BatchWorld, **wrapped: Any) -> asyncio.Task[Any]:
    """A step of the first driver, which is held in the middle of it."""
    world.codec = Held(at=5)
    await world.created((a_line(n) for n in range(1, LINES + 1)), caller=caller_of(world))
    await world.step()
    first = asyncio.create_task(world.step(**wrapped))
    await world.codec.is_held.wait()
    return first


def caller_of(world: BatchWorld) -> Principal:
    return world.caller if isinstance(world, LimitedWorld) else Principal("default")


async def cancelled(world: BatchWorld) -> None:
    """The batch is cancelled, and another driver brings it to its end."""
    await world.use_cases.cancel("default", world.batch_id)
    while not (await world.step()).is_done:
        pass


@pytest.mark.parametrize("make", [BatchWorld, lambda: LimitedWorld(concurrent_jobs=100)])
async def test_lines_that_a_step_submits_after_its_batch_was_cancelled_do_not_run(
    make: Any,
) -> None:
    world: BatchWorld = make()
    first = await beside(world)

    await cancelled(world)
    ended = world.batch
    world.codec.may_go_on.set()
    await first
    await world.work()

    assert not world.completions
    jobs = [await world.jobs.get(ended.job_id(n)) for n in range(1, LINES + 1)]
    assert {job.state for job in jobs if job is not None} == {JobState.CANCELLED}
    assert world.batch == ended
    assert (ended.counts.completed, ended.counts.failed) == (0, LINES)
    assert (await world.step()).is_done
    if isinstance(world, LimitedWorld):
        assert world.meter.counts(KEY, world.clock()).open == 0


async def test_nor_do_they_where_the_step_breaks_down_in_the_middle_of_submitting() -> None:
    world = BatchWorld()

    class Failing:
        """The last of the jobs cannot be recorded."""

        def __getattr__(self, name: str) -> Any:
            return getattr(world.jobs, name)

        async def create(self, job: Any) -> None:
            if job.id == world.batch.job_id(LINES):
                raise Unavailable("throttled")
            await world.jobs.create(job)

    first = await beside(world, store=Failing())
    await cancelled(world)
    world.codec.may_go_on.set()
    with pytest.raises(Unavailable):
        await first
    await world.work()

    assert len(world.jobs.jobs) == LINES - 1
    assert {job.state for job in world.jobs.jobs.values()} == {JobState.CANCELLED}


async def test_nor_do_they_where_one_cannot_be_ended_at_first() -> None:
    world = BatchWorld()
    throttled = failing_before(world.jobs, close=[None, Unavailable("throttled")])
    first = await beside(world, store=throttled)
    await cancelled(world)
    world.codec.may_go_on.set()
    await first
    await world.work()

    assert not world.completions
    assert {job.state for job in world.jobs.jobs.values()} == {JobState.CANCELLED}


async def test_a_step_that_is_overtaken_by_another_ends_nothing_that_the_other_wants() -> None:
    world = BatchWorld()
    first = await beside(world)

    await world.step()
    world.codec.may_go_on.set()
    assert not (await first).is_done
    batch = await world.run()

    assert (batch.counts.completed, batch.counts.failed) == (LINES, 0)
    assert set(world.completions.values()) == {1}


async def test_lines_that_were_submitted_before_the_file_went_do_not_run() -> None:
    world = BatchWorld()

    class Cut:
        """The file is deleted while it is read."""

        def __getattr__(self, name: str) -> Any:
            return getattr(world.blobs, name)

        async def stream(self, key: str, start: int = 0) -> Any:
            pieces = 0
            async for piece in world.blobs.stream(key, start):
                if pieces == 10:
                    raise KeyError(key)
                pieces += 1
                yield piece

    await world.created(a_line(n) for n in range(1, 500))
    await world.step()
    await world.advancer(file_blobs=Cut()).advance("default", world.batch_id, 500)
    await world.work()

    assert world.batch.status is FileBatchStatus.FAILED
    assert world.jobs.jobs
    assert not world.completions


@pytest.mark.parametrize("seed", range(20))
async def test_whenever_a_batch_is_cancelled_no_line_runs_that_it_does_not_count(
    seed: int,
) -> None:
    world, chance = BatchWorld(), random.Random(seed)
    await world.created(a_line(n) for n in range(1, 61))

    def slowed(target: Any) -> Any:
        return Chaotic(target, chance, rate=0)

    async def drive() -> None:
        parts = {"batches": world.batches, "store": world.jobs, "blobs": world.blobs}
        slow = {name: slowed(each) for name, each in parts.items()}
        is_done = False
        while not is_done:
            # A part that another driver has cleared up is such an end, of a step that is repeated.
            with contextlib.suppress(Unavailable):
                is_done = (await world.step(**slow)).is_done
            await world.work(limit=chance.randrange(8))

    async def cancel() -> None:
        while world.batch.status is FileBatchStatus.VALIDATING:
            await asyncio.sleep(0)
        for _ in range(chance.randrange(30)):
            await asyncio.sleep(0)
        await world.use_cases.cancel("default", world.batch_id)

    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
        for task in (drive(), drive(), drive(), cancel()):
            tasks.create_task(task)
    await world.work()

    batch = world.batch
    assert batch.status is FileBatchStatus.CANCELLED
    assert batch.counts.completed + batch.counts.failed == batch.counts.total == 60
    assert sum(world.completions.values()) == batch.counts.completed
    assert len(await world.output()) == batch.counts.completed
    assert all(job.state.is_final for job in world.jobs.jobs.values())
