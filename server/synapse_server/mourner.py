"""Sees to it that nobody waits for a worker that is dead."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from synapse.application.fleet import Fleet
from synapse.ports import Clock, WorkerRegistry

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Mourner:
    """Declares workers dead whose lease has ended, and breaks off what still runs on them.

    Their jobs go back to the queue; callers on the line are sent on, as far as nothing was said
    to them yet. After a pause of its own of more than half a lease (the machine slept, or had no
    time for us) it declares nobody dead for a lease: whoever was asleep cannot tell who is dead,
    and engines have to be asked again and to beat before they can be told from those that hang.
    """

    workers: WorkerRegistry
    fleet: Fleet
    clock: Clock
    lease_s: float
    _looked_at: float | None = None
    _awoke_at: float = -math.inf

    async def bury(self) -> int:
        """One look; returns how many have died."""
        now, before = self.clock(), self._looked_at
        self._looked_at = now
        if before is not None and now - before > self.lease_s / 2:
            self._awoke_at = now
        if 0.0 <= now - self._awoke_at < self.lease_s:
            return 0
        dead = await self.workers.expire(now)
        if dead:
            self.fleet.roster.stale()
        for worker in dead:
            broken = self.fleet.engine.break_off(worker.id, "has given no sign of life")
            self.fleet.vitals.renew(worker.id)
            logger.warning(
                "worker %s is dead: no sign of life for its lease; %d calls broken off",
                worker.id,
                broken,
            )
        return len(dead)
