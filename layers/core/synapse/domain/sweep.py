"""What becomes of an open job that nobody has moved for too long."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from synapse.domain.job import Failure, Job, JobState

EXPIRED = Failure("deadline_exceeded", "the job's timeout passed before it was done")
LOST = Failure("worker_lost", "the workers that ran the job went down, each time it was tried")


class Remedy(StrEnum):
    """What the sweeper does with a due job."""

    EXPIRE = "expire"
    RESEND = "resend"
    GIVE_UP = "give_up"
    FAIL = "fail"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class SweepPolicy:
    """How many workers may be lost with a job (they died or hung) before it is given up."""

    max_losses: int = 3

    def remedy(self, job: Job, now: float) -> Remedy:
        """Decide for one job; ended jobs and those that are not due are left alone."""
        if job.due_at is None or job.due_at > now:
            return Remedy.LEAVE
        if job.deadline_at <= now:
            return Remedy.EXPIRE
        if job.state is JobState.RUNNING and self.is_spent(job, lost=True):
            return Remedy.GIVE_UP
        return Remedy.RESEND

    def is_spent(self, job: Job, *, lost: bool) -> bool:
        """Whether a job that comes back from a worker (`lost`: one that went down) has had it."""
        return lost and job.losses + 1 >= self.max_losses
