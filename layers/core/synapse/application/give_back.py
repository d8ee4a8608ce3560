"""What becomes of jobs whose batch could not be run to its end."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from synapse.application.intake import message_of
from synapse.application.side_by_side import all_ended
from synapse.domain.errors import Unavailable
from synapse.domain.job import Failure, Job, JobId, JobState, Outcome
from synapse.domain.sweep import SweepPolicy
from synapse.ports import Clock, JobQueue, JobStore, Telemetry

logger = logging.getLogger(__name__)

TOGETHER = 32
"""Jobs that are given back side by side, and told of before the next: a batch may have hundreds."""


@dataclass(frozen=True, slots=True)
class GiveBack:
    """Sends jobs back to their queue, or ends those that have cost too many workers."""

    store: JobStore
    queue: JobQueue
    telemetry: Telemetry
    clock: Clock
    policy: SweepPolicy = field(default_factory=SweepPolicy)

    async def __call__(
        self, owner: str, job_ids: Sequence[JobId], failure: Failure, *, lost: bool
    ) -> None:
        """Give back the jobs that `owner` (a batch) still holds; the others are left alone.

        `lost` says that a worker went down with them: such a job runs alone from then on, and
        fails with `failure` as its cause once it has been lost too often. A job that is queued was
        never begun, or given back already: it is sent again, and has lost no worker.
        """
        for start in range(0, len(job_ids), TOGETHER):
            some = job_ids[start : start + TOGETHER]
            back = await all_ended([self._back(owner, job, failure, lost=lost) for job in some])
            requeued = [job for job in back if job is not None]
            if requeued:
                await self.queue.send([message_of(job) for job in requeued])

    async def _back(self, owner: str, job_id: JobId, failure: Failure, *, lost: bool) -> Job | None:
        """The job as it waits again; None if it does not."""
        job = await self.store.get(job_id)
        if job is None or not (job.is_held_by(owner) or job.state is JobState.QUEUED):
            return None
        was_lost = lost and job.state is JobState.RUNNING
        if self.policy.is_spent(job, lost=was_lost) and await self._fail(job, owner, failure):
            return None
        return await self.store.requeue(job, self.clock(), lost=was_lost)

    async def _fail(self, job: Job, owner: str, failure: Failure) -> bool:
        """End the job; False if that could not be written down: then it is tried once more."""
        outcome = Outcome(job.id, JobState.FAILED, failure=failure)
        try:
            ended = await self.store.settle(outcome, owner, self.clock())
        except Unavailable as error:
            logger.warning("end of job not written: %s", error.message, extra={"job": job.id})
            return False
        if ended is not None:
            self.telemetry.ended(ended)
        return True
