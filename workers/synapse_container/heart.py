"""Tells the registry how the worker is, at once when that changes and else every few seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from typing import Protocol

from synapse.domain.errors import Unavailable
from synapse.domain.pool import Pool
from synapse.ports import WorkerRegistry
from synapse_server.local_worker import worker_of
from synapse_worker.agent import Snapshot

logger = logging.getLogger(__name__)

BEAT_EVERY_S = 5.0
LEASE_S = 20.0
"""Three beats may be lost: DynamoDB throttles, or the machine is slow for a moment."""

LAST_WORDS_S = 120.0
"""So long it is told why a worker gave up: two rounds of who notes that a pool brings none up."""

MIN_PAUSE_S = 0.5
"""Between two beats, however fast things change: each one is a write."""


class Telling(Protocol):
    """What an agent tells of itself."""

    def beats(self, period_s: float) -> AsyncIterator[Snapshot]:
        """A snapshot now, at every change, and `period_s` after the last one; without end."""
        ...

    def snapshot(self) -> Snapshot:
        """How the worker is."""
        ...


class Heart:
    """Beats for as long as it runs; what cannot be written is written with the next beat."""

    def __init__(self, registry: WorkerRegistry, pool: Pool, agent: Telling) -> None:
        self._registry = registry
        self._pool = pool
        self._agent = agent

    async def run(self) -> None:
        """Until it is cancelled."""
        async for snapshot in self._agent.beats(BEAT_EVERY_S):
            await self._beat(snapshot)
            await asyncio.sleep(MIN_PAUSE_S)

    async def _beat(self, snapshot: Snapshot) -> None:
        worker = worker_of(snapshot, self._pool, time.time(), LEASE_S)
        # An agent that lives does not bring back an engine that has given no sign of life.
        if not worker.is_alive(worker.beat_at):
            return
        try:
            await self._registry.beat(worker)
        except Unavailable as error:
            logger.warning("heartbeat not written: %s", error.message)
        except Exception:
            # Such as a right that is missing. The worker may be in the middle of an answer.
            logger.exception("heartbeat not written")

    async def stop(self, why: str = "") -> None:
        """Say that the worker has left, or `why` it gave up: nobody is to wait for its lease."""
        snapshot = self._agent.snapshot()
        try:
            if why:
                last = worker_of(snapshot, self._pool, time.time(), LAST_WORDS_S)
                await self._registry.beat(last.ended(why))
            else:
                await self._registry.forget(snapshot.id)
        except Unavailable as error:
            logger.warning("not said that the worker has left: %s", error.message)
