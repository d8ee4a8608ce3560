"""The records of jobs, with what each reserved of its account's limits settled when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from synapse.application.metering import Metering
from synapse.domain.job import Failure, Job, JobId, JobState, Lease, Outcome
from synapse.ports import Created, Idempotency, JobStore


@dataclass(frozen=True, slots=True)
class MeteredJobs:
    """A JobStore around another. Of two who end a job one is told that it did: it settles."""

    store: JobStore
    metering: Metering

    async def create(self, job: Job, idempotency: Idempotency | None = None) -> Created:
        """See the port; what the job reserves was reserved before (`Metering.create`)."""
        return await self.store.create(job, idempotency)

    def recording(self, job: Job) -> AbstractAsyncContextManager[None]:
        """See the port, and `create`."""
        return self.store.recording(job)

    async def made_with(self, tenant: str, idempotency: Idempotency) -> Job | None:
        """See the port."""
        return await self.store.made_with(tenant, idempotency)

    async def create_many(self, jobs: Sequence[Job]) -> None:
        """See the port."""
        await self.store.create_many(jobs)

    async def get(self, job_id: JobId) -> Job | None:
        """See the port."""
        return await self.store.get(job_id)

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, now: float) -> list[Job]:
        """See the port."""
        return await self.store.claim(job_ids, lease, now)

    async def settle(self, outcome: Outcome, owner: str, now: float) -> Job | None:
        """See the port."""
        return await self._ended(await self.store.settle(outcome, owner, now))

    async def close(
        self, job_id: JobId, state: JobState, failure: Failure | None, now: float
    ) -> Job | None:
        """See the port."""
        return await self._ended(await self.store.close(job_id, state, failure, now))

    async def requeue(
        self, job: Job, now: float, *, lost: bool, unanswered: bool = False
    ) -> Job | None:
        """See the port."""
        return await self.store.requeue(job, now, lost=lost, unanswered=unanswered)

    async def due(self, now: float, limit: int) -> list[Job]:
        """See the port."""
        return await self.store.due(now, limit)

    async def watch(self, job_id: JobId, timeout_s: float) -> None:
        """See the port."""
        await self.store.watch(job_id, timeout_s)

    async def _ended(self, job: Job | None) -> Job | None:
        if job is not None:
            await self.metering.job_ended(job)
        return job
