"""Read a job, wait for it, cancel it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from synapse.application.cold_start import ColdStart, ColdStarts
from synapse.application.payloads import fetch
from synapse.domain.errors import JobNotCancellable, JobNotFound, ResultLost
from synapse.domain.job import Failure, Job, JobId, JobState, Payload
from synapse.domain.loading import expired
from synapse.ports import BlobStore, Clock, JobStore, Telemetry

ResultLink = Callable[[str, str], Awaitable[str | None]]
"""By its blob's key and its text: where a result is to be read that is too large to answer with."""


def nobody_told(job_id: JobId) -> None:
    """Of a job that has ended."""


CANCELLED = Failure("cancelled", "the job was cancelled by its owner")


@dataclass(frozen=True, slots=True)
class JobView:
    """A job and, once it is COMPLETED, what the model made of it.

    `cold` says what an open job waits for where no worker is up for it. A `result_url` is where to
    read a result that is too large to answer with.
    """

    job: Job
    result: dict[str, Any] | None
    cold: ColdStart | None = None
    result_url: str | None = None


@dataclass(frozen=True, slots=True)
class Results:
    """The use cases behind `GET` and `DELETE` of a job; without `link` all results are answered.

    The queue is told to `forget` those that end here, where it can.
    """

    store: JobStore
    blobs: BlobStore
    telemetry: Telemetry
    clock: Clock
    cold_starts: ColdStarts | None = None
    link: ResultLink | None = None
    forget: Callable[[JobId], None] = nobody_told

    async def get(self, job_id: JobId, tenant: str, wait_s: float = 0.0) -> JobView:
        """The tenant's job as it stands, or as it ends if that happens within `wait_s` seconds.

        Raises:
            JobNotFound: there is no such job, or it is another tenant's.
            ResultLost: it is COMPLETED, and its record has outlived its result.
        """
        # By the loop's time: a clock that is set back would hold the answer for as long.
        now = asyncio.get_running_loop().time
        give_up_at = now() + wait_s
        job = await self._current(job_id, tenant)
        while not job.state.is_final and (left_s := give_up_at - now()) > 0:
            await self.store.watch(job_id, left_s)
            job = await self._current(job_id, tenant)
        cold = None if self.cold_starts is None else await self.cold_starts.of_job(job)
        if job.result is None:
            return JobView(job, None, cold)
        text = await self._text(job, job.result)
        url = None
        if self.link is not None and job.result.blob_key is not None:
            url = await self.link(job.result.blob_key, text)
        return JobView(job, json.loads(text), cold, url)

    async def cancel(self, job_id: JobId, tenant: str, abort: Callable[[JobId], None]) -> JobView:
        """End an open job as CANCELLED; one that is CANCELLED already stays so.

        `abort` stops the work itself where the runner can be reached.

        Raises:
            JobNotFound: there is no such job, or it is another tenant's.
            JobNotCancellable: it has ended otherwise.
        """
        await self._current(job_id, tenant)
        job = await self.store.close(job_id, JobState.CANCELLED, CANCELLED, self.clock())
        if job is None:
            job = await self._current(job_id, tenant)
            if job.state is not JobState.CANCELLED:
                raise JobNotCancellable(f"job {job_id} is {job.state} and cannot be cancelled")
            return JobView(job, None)
        abort(job_id)
        self.telemetry.ended(job)
        return JobView(job, None)

    async def _current(self, job_id: JobId, tenant: str) -> Job:
        job = await self.store.get(job_id)
        if job is None or job.tenant != tenant:
            raise JobNotFound(f"there is no job {job_id!r} (or its retention has passed)")
        if job.state.is_final:
            return job
        failed = None if self.cold_starts is None else await self.cold_starts.failed_of(job)
        if job.deadline_at <= self.clock():
            return await self._end(job, JobState.EXPIRED, expired(failed))
        if failed is not None and failed.is_final:
            return await self._end(job, JobState.FAILED, failed.failure)
        return job

    async def _end(self, job: Job, state: JobState, failure: Failure) -> Job:
        """End a job; who asked may hang up, what follows from the end is done all the same."""
        return await asyncio.shield(self._ended(job, state, failure))

    async def _ended(self, job: Job, state: JobState, failure: Failure) -> Job:
        ended = await self.store.close(job.id, state, failure, self.clock())
        if ended is None:
            return await self.store.get(job.id) or job
        self.forget(job.id)
        self.telemetry.ended(ended)
        return ended

    async def _text(self, job: Job, result: Payload) -> str:
        try:
            return await fetch(self.blobs, result)
        except KeyError as error:
            reason = f"the result of job {job.id} is gone; submit the job again"
            raise ResultLost(reason) from error
