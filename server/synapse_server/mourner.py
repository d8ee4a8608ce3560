"""Sees to it that nobody waits for a worker that is dead."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from synapse.application.fleet import Fleet
from synapse.ports import Clock, WorkerRegistry

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Mourner:
    """Declares workers dead whose lease has ended, and breaks off what still runs on them.

    Their jobs go back to the queue; callers on the line are sent on, as far as nothing was said
    to them yet.
    """

    workers: WorkerRegistry
    fleet: Fleet
    clock: Clock

    async def bury(self) -> int:
        """One look; returns how many have died."""
        dead = await self.workers.expire(self.clock())
        if dead:
            self.fleet.roster.stale()
        for worker in dead:
            broken = self.fleet.engine.break_off(worker.id, "has given no sign of life")
            logger.warning(
                "worker %s is dead: no sign of life for its lease; %d calls broken off",
                worker.id,
                broken,
            )
        return len(dead)
