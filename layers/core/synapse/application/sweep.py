"""Look after open jobs that nobody has moved for too long."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from synapse.application.intake import message_of
from synapse.domain.job import Job, JobState
from synapse.domain.sweep import EXPIRED, LOST, Remedy, SweepPolicy
from synapse.ports import Clock, JobQueue, JobStore, Telemetry


@dataclass(frozen=True, slots=True)
class Sweeper:
    """Expires, sends again or gives up what is due, so that every job comes to an end."""

    store: JobStore
    queue: JobQueue
    telemetry: Telemetry
    clock: Clock
    policy: SweepPolicy = field(default_factory=SweepPolicy)

    async def sweep(self, limit: int = 1000) -> Mapping[str, int]:
        """Treat at most `limit` due jobs; returns how often each remedy was applied."""
        counts: Counter[str] = Counter()
        for job in await self.store.due(self.clock(), limit):
            remedy = self.policy.remedy(job, self.clock())
            if await self._apply(job, remedy):
                counts[remedy.value] += 1
        self.telemetry.swept(counts)
        return counts

    async def _apply(self, job: Job, remedy: Remedy) -> bool:
        now = self.clock()
        match remedy:
            case Remedy.EXPIRE:
                return self._ended(await self.store.close(job.id, JobState.EXPIRED, EXPIRED, now))
            case Remedy.GIVE_UP:
                return self._ended(await self.store.close(job.id, JobState.FAILED, LOST, now))
            case Remedy.RESEND:
                lost = job.state is JobState.RUNNING
                again = await self.store.requeue(job, now, lost=lost)
                if again is not None:
                    await self.queue.send([message_of(again)])
                return again is not None
            case Remedy.LEAVE:
                return False

    def _ended(self, job: Job | None) -> bool:
        if job is not None:
            self.telemetry.ended(job)
        return job is not None
