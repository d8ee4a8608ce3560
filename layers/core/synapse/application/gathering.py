"""Bronze for which there is no room comes back in company, and is kept while no place is free."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from synapse.application.waiting import WaitingPlaces
from synapse.domain.batching import JobMessage
from synapse.domain.candidate import Candidate
from synapse.domain.errors import Unavailable
from synapse.domain.job import Priority, SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.routing import Decision

logger = logging.getLogger(__name__)

AGAIN_S = 5.0
"""So long a message is kept that finds no place: as long as a pool takes for those that wait."""

Send = Callable[[Sequence[JobMessage], float], Awaitable[None]]
"""Have messages come together, after so many seconds and some more. Raises Unavailable."""


@dataclass(frozen=True, slots=True)
class Gathering:
    """Which messages are kept for seconds.

    A job that is started alone costs a runner of its own, which waits for room as it would with
    fifteen more; one that is started where all places to wait are taken goes round in vain.
    """

    send: Send
    places: WaitingPlaces

    def turn(self, now: float, *, were_gathered: bool) -> Turn:
        """For messages that have come together, new ones or those that were kept before."""
        return Turn(self, now, were_gathered)


@dataclass(slots=True)
class Turn:
    """Keeps batches of one call. What has a place, or room, has it taken from those after it."""

    _gathering: Gathering
    _now: float
    _were_gathered: bool
    _kept: list[JobMessage] = field(default_factory=list)
    _free: dict[tuple[str, str], int] = field(default_factory=dict)
    """How many more batches find a place, or room, in a model's pool."""

    async def keeps(self, spec: ModelSpec, jobs: Sequence[JobMessage], decision: Decision) -> bool:
        """Whether these are not to be started now; then they are kept until this is closed.

        Where no worker is up they are started, so that one is.

        New ones are kept where no pool has room, those that were kept before where nobody more may
        wait either, each as long as there is time.
        """
        if not _is_patient(jobs[0]):
            return False
        if self._were_gathered:
            keeps = self._has_time(jobs) and not await self._takes_place(spec, jobs, decision)
        else:
            keeps = decision.is_full()
        if keeps:
            self._kept.extend(jobs)
        return keeps

    async def close(self) -> None:
        """Send on what is kept.

        Raises:
            Unavailable: not all of it; deliver the messages again.
        """
        if self._kept:
            logger.info("there is no room: gathered", extra={"n": len(self._kept)})
            await self._gathering.send(self._kept, AGAIN_S if self._were_gathered else 0.0)

    def _has_time(self, jobs: Sequence[JobMessage]) -> bool:
        return min(job.deadline_at for job in jobs) > self._now + 2 * AGAIN_S

    async def _takes_place(
        self, spec: ModelSpec, jobs: Sequence[JobMessage], decision: Decision
    ) -> bool:
        """Whether these find a place, or room, in any pool; also where that cannot be told."""
        takers, items = decision.takers(), sum(job.items for job in jobs)
        for each in takers:
            try:
                if await self._takes_place_in(spec, items, each):
                    return True
            except Unavailable as error:
                logger.warning("places not told: %s", error.message)
                return True
        return not takers

    async def _takes_place_in(self, spec: ModelSpec, items: int, candidate: Candidate) -> bool:
        key = spec.name, candidate.pool.name
        if key not in self._free:
            places, pool = self._gathering.places, candidate.pool
            most = await places.most(spec, pool, items)
            if most <= 0 or candidate.room is None:
                return True
            free = most - await places.taken(spec, pool)
            self._free[key] = max(0, free) + math.ceil(max(0, candidate.room) / items)
        if self._free[key] <= 0:
            return False
        self._free[key] -= 1
        return True


def _is_patient(first: JobMessage) -> bool:
    # A suspect rides alone anyway.
    is_bronze = first.sla is SlaTier.BRONZE and not first.is_suspect
    return is_bronze and first.priority is not Priority.HIGH
