"""What the last process left is queued in its order, however few there is room for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from synapse.adapters.local.queue import LocalJobQueue
from synapse.domain.job import Job, JobId, SlaTier
from synapse_server import refill as module
from synapse_server.refill import refill
from tests.factories import a_job
from tests.patience import PATIENCE_S


async def test_more_jobs_than_there_is_room_for_are_queued_as_room_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "PAUSE_S", 0.001)
    jobs = [a_job() for _ in range(7)]

    async def pages() -> AsyncIterator[Sequence[Job]]:
        yield jobs[:5]
        yield jobs[5:]

    queue = LocalJobQueue(max_waiting=2)
    refilling = asyncio.create_task(refill(pages(), queue))
    taken: list[JobId] = []
    async with asyncio.timeout(PATIENCE_S):
        while len(taken) < len(jobs):
            await queue.wait("echo", SlaTier.BRONZE)
            assert len(queue) <= 2
            taken += [message.job_id for message in queue.take("echo", SlaTier.BRONZE, 1)]
        await refilling

    assert taken == [job.id for job in jobs]
