"""Callers that wait for the end of a job: woken when it is on disk, without polling."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from synapse.domain.job import JobId


class Watchers:
    """Who waits for which job."""

    def __init__(self) -> None:
        self._waiting: dict[JobId, set[asyncio.Future[None]]] = {}

    def __len__(self) -> int:
        """How many wait, over all jobs."""
        return sum(len(futures) for futures in self._waiting.values())

    def wake(self, job_id: JobId) -> None:
        """Tell all who wait for the job."""
        for future in self._waiting.get(job_id, ()):
            _end(future)

    async def wait(
        self, job_id: JobId, timeout_s: float, is_over: Callable[[], Awaitable[bool]]
    ) -> None:
        """Return when the job is woken, or at once if it `is_over`, or after `timeout_s`."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        # First in line, then the look: an end between the two wakes us.
        self._waiting.setdefault(job_id, set()).add(future)
        timer = loop.call_later(max(0.0, timeout_s), _end, future)
        try:
            if not await is_over():
                await future
        finally:
            timer.cancel()
            self._leave(job_id, future)

    def _leave(self, job_id: JobId, future: asyncio.Future[None]) -> None:
        futures = self._waiting[job_id]
        futures.discard(future)
        if not futures:
            del self._waiting[job_id]


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
