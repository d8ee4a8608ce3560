"""Look after open jobs that nobody has moved for too long."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from synapse.application.cold_start import ColdStarts
from synapse.application.intake import message_of
from synapse.application.results import nobody_told
from synapse.domain.errors import Unavailable
from synapse.domain.job import Job, JobId, JobState
from synapse.domain.loading import FailedLoad, expired
from synapse.domain.sweep import LOST, Remedy, SweepPolicy
from synapse.ports import Clock, JobQueue, JobStore, Telemetry

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Sweeper:
    """Expires, sends again or gives up what is due, so that every job comes to an end.

    The queue is told to `forget` those that end here, where it can.
    """

    store: JobStore
    queue: JobQueue
    telemetry: Telemetry
    clock: Clock
    policy: SweepPolicy = field(default_factory=SweepPolicy)
    cold_starts: ColdStarts | None = None
    forget: Callable[[JobId], None] = nobody_told

    async def sweep(self, limit: int = 1000, for_s: float = math.inf) -> Mapping[str, int]:
        """Treat at most `limit` due jobs, and begin with none after `for_s` seconds.

        Returns how often each remedy was applied. Deadlines are kept though the queue takes
        nothing: what was not sent comes due again.
        """
        counts: Counter[str] = Counter()
        unsent = 0
        until = self.clock() + for_s
        due = await self.store.due(self.clock(), limit)
        for number, job in enumerate(due):
            if self.clock() >= until:
                logger.warning("jobs left for the next sweep", extra={"jobs": len(due) - number})
                break
            remedy = self.policy.remedy(job, self.clock())
            failed = None if self.cold_starts is None else await self.cold_starts.failed_of(job)
            if remedy is Remedy.RESEND and failed is not None and failed.is_final:
                remedy = Remedy.FAIL
            if remedy is not Remedy.RESEND:
                counts[remedy.value] += await self._end(job, remedy, failed)
                continue
            if unsent and len(due) < limit:
                # Left as it is it goes as soon as there is room. Where there are more than these
                # it makes way below, or would hide deadlines.
                unsent += 1
                continue
            lost = job.state is JobState.RUNNING
            again = await self.store.requeue(job, self.clock(), lost=lost, unanswered=not lost)
            if again is None:
                continue
            # Once the queue has refused one, the others would wait for it as long, in vain.
            is_sent = not unsent and await self._send(again)
            counts[remedy.value] += is_sent
            unsent += not is_sent
        if unsent:
            logger.warning("jobs not sent again, they come due again", extra={"jobs": unsent})
        counts = +counts  # without what was applied to none
        self.telemetry.swept(counts)
        return counts

    async def _send(self, job: Job) -> bool:
        try:
            await self.queue.send([message_of(job)])
        except Unavailable as error:
            logger.warning("the queue takes nothing: %s", error.message, extra={"job": job.id})
            return False
        return True

    async def _end(self, job: Job, remedy: Remedy, failed: FailedLoad | None) -> bool:
        match remedy:
            case Remedy.EXPIRE:
                state, failure = JobState.EXPIRED, expired(failed)
            case Remedy.GIVE_UP:
                state, failure = JobState.FAILED, LOST
            case Remedy.FAIL if failed is not None:
                state, failure = JobState.FAILED, failed.failure
            case _:
                return False
        ended = await self.store.close(job.id, state, failure, self.clock())
        if ended is not None:
            self.forget(job.id)
            self.telemetry.ended(ended)
        return ended is not None
