"""Several drivers of one batch at once, over adapters that fail and lose answers at random."""

from __future__ import annotations

import asyncio
import inspect
import random
from typing import Any

import pytest

from synapse.application.intake import message_of
from synapse.domain.errors import Unavailable
from synapse.domain.file_batch import FileBatchStatus
from tests.unit.batches.batch_world import BatchWorld, a_line

LINES = 60
BAD = {7, 23}


class Chaotic:
    """Each call may fail before it runs, or after; or it lets others go first."""

    def __init__(self, target: Any, chance: random.Random, rate: float) -> None:
        self._target, self._chance, self._rate = target, chance, rate

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        if not inspect.iscoroutinefunction(attribute):
            return attribute

        async def call(*args: Any, **kwargs: Any) -> Any:
            for _ in range(self._chance.randrange(3)):
                await asyncio.sleep(0)
            roll = self._chance.random()
            if roll < self._rate:
                raise Unavailable("before")
            answer = await attribute(*args, **kwargs)
            if roll > 1 - self._rate:
                raise Unavailable("after")
            return answer

        return call


@pytest.mark.parametrize("seed", range(12))
async def test_every_line_is_answered_once_whatever_fails(seed: int) -> None:
    world, chance = BatchWorld(), random.Random(seed)
    lines = [a_line(number) if number not in BAD else "{" for number in range(LINES)]
    await world.created(lines)

    def wrapped(target: Any) -> Any:
        return Chaotic(target, chance, rate=0.02)

    async def drive() -> None:
        while True:
            try:
                progress = await world.step(
                    batches=wrapped(world.batches),
                    store=wrapped(world.jobs),
                    queue=wrapped(world.queue),
                    blobs=wrapped(world.blobs),
                )
            except Unavailable:
                continue
            if progress.is_done:
                return
            await world.work(limit=chance.randrange(12))
            for job in world.jobs.jobs.values():
                await _resend_if_lost(world, job)

    async with asyncio.timeout(30), asyncio.TaskGroup() as drivers:
        for _ in range(3):
            drivers.create_task(drive())

    batch = world.batch
    assert batch.status is FileBatchStatus.COMPLETED
    assert (batch.counts.completed, batch.counts.failed) == (LINES - len(BAD), len(BAD))
    assert set(await world.output()) == {f"c{n}" for n in range(LINES) if n not in BAD}
    assert len(await world.errors()) == len(BAD)
    assert len(world.completions) == LINES - len(BAD)
    assert set(world.completions.values()) == {1}


async def _resend_if_lost(world: BatchWorld, job: Any) -> None:
    """The sweeper's part, at once: what is recorded but not queued is sent."""
    queued = {message.job_id for message in world.queue.messages}
    if job.state == "QUEUED" and job.id not in queued:
        await world.queue.send([message_of(job)])
