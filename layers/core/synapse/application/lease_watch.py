"""While calls run elsewhere than with the autoscaler: nobody waits for a worker that has died."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from synapse.application.fleet import Fleet
from synapse.domain.errors import Unavailable
from synapse.ports import Clock, WorkerRegistry

logger = logging.getLogger(__name__)

WATCH_EVERY_S = 2.0


@contextlib.asynccontextmanager
async def lease_watch(
    workers: WorkerRegistry, fleet: Fleet, clock: Clock, every_s: float = WATCH_EVERY_S
) -> AsyncIterator[None]:
    """Break off, for as long as the block lasts, the calls of workers whose lease ends."""
    watching = asyncio.create_task(_watch(workers, fleet, clock, every_s))
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _watch(workers: WorkerRegistry, fleet: Fleet, clock: Clock, every_s: float) -> None:
    known: set[str] = set()
    while True:
        try:
            seen = await workers.workers(clock())
            alive = {worker.id for worker in seen if not worker.has_ended}
        except Unavailable:
            alive = known
        except Exception:
            # Such as a right that is missing: it must not make an error of the batch.
            logger.exception("leases not read")
            alive = known
        for worker_id in known - alive:
            fleet.roster.stale()
            fleet.engine.break_off(worker_id, "has given no sign of life")
        known = alive
        await asyncio.sleep(every_s)
