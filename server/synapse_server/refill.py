"""Queues what the last process left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from synapse.adapters.local.queue import LocalJobQueue
from synapse.application.intake import message_of
from synapse.domain.job import Job

PAUSE_S = 0.5
"""While there is no room."""


async def refill(pages: AsyncIterator[Sequence[Job]], queue: LocalJobQueue) -> None:
    """Send the jobs of all pages in their order, as room is made for them: few rooms are enough."""
    async for page in pages:
        waiting = [message_of(job) for job in page]
        while waiting:
            room = queue.room()
            await queue.send(waiting[:room])
            del waiting[:room]
            if waiting:
                await asyncio.sleep(PAUSE_S)
