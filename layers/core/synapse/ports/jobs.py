"""Records of jobs, and the queue that carries the news of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from synapse.domain.batching import JobMessage
from synapse.domain.job import Failure, Job, JobId, JobState, Lease, Outcome, Priority


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A caller's key for one request, and a fingerprint of the request's body."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Created:
    """The job of a request: a new one, or the one an earlier request with the same key made."""

    job: Job
    is_new: bool


class JobStore(Protocol):
    """The truth about jobs. Every change is conditional on the state the job is in.

    A change that is refused because the job has moved on returns None (or leaves the job out);
    that is the ordinary fate of duplicates, not an error.
    """

    async def create(self, job: Job, idempotency: Idempotency | None = None) -> Created:
        """Record a new job durably before returning.

        Raises:
            IdempotencyConflict: the key was used before with another fingerprint.
            ValueError: the id is taken.
            Unavailable: it could not be recorded, and is not as far as can be told.
        """
        ...

    def recording(self, job: Job) -> AbstractAsyncContextManager[None]:
        """Record a new job and let it be claimed meanwhile: within the block it can be found.

        It is as durable as after `create` once the block is left without an error. If leaving it
        fails nothing was recorded, and nothing comes of what was done to the job: nobody hears
        that he ended it. A store that others claim from may do all of it before the block.

        Raises:
            ValueError: the id is taken; the block is not entered.
            Unavailable: the job could not be recorded.
        """
        ...

    async def made_with(self, tenant: str, idempotency: Idempotency) -> Job | None:
        """The job that an earlier request with the key made, if one did.

        Raises:
            IdempotencyConflict: the key was used before with another fingerprint.
        """
        ...

    async def create_many(self, jobs: Sequence[Job]) -> None:
        """Record several new jobs durably before returning; after an error none of them runs."""
        ...

    async def get(self, job_id: JobId) -> Job | None:
        """The job, or None if there is none (or its retention has passed)."""
        ...

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, now: float) -> list[Job]:
        """Take the jobs that may be taken (`Job.can_be_claimed`), in the order asked."""
        ...

    async def settle(self, outcome: Outcome, owner: str, now: float) -> Job | None:
        """Write a running job's end, if `owner` still holds its lease; durable on return."""
        ...

    async def close(
        self, job_id: JobId, state: JobState, failure: Failure | None, now: float
    ) -> Job | None:
        """End an open job from outside, whoever runs it; durable on return."""
        ...

    async def requeue(
        self, job: Job, now: float, *, lost: bool, unanswered: bool = False
    ) -> Job | None:
        """Put `job` back to QUEUED (`Job.requeued`) if it still stands exactly as given.

        "As given" is the same state, lease owner and number of sends: whoever looked at an
        outdated job changes nothing.
        """
        ...

    async def due(self, now: float, limit: int) -> list[Job]:
        """Open jobs that the sweeper should look at (`Job.due_at` ≤ now), earliest first."""
        ...

    async def watch(self, job_id: JobId, timeout_s: float) -> None:
        """Return when the job may have ended, or after `timeout_s` at the latest."""
        ...


class JobQueue(Protocol):
    """Carries the news that a job waits. At least once, in no guaranteed order."""

    async def send(self, messages: Sequence[JobMessage]) -> None:
        """Enqueue all messages.

        Raises:
            Unavailable: some message could not be sent.
        """
        ...

    async def depth(self, model: str) -> Mapping[Priority, int]:
        """Jobs waiting per priority; a queue that cannot tell models apart counts them all."""
        ...

    async def items(self, model: str) -> Mapping[Priority, int]:
        """The same in items, of which a job has one or more; in jobs where that is all it knows."""
        ...
