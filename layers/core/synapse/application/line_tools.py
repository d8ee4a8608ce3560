"""What it takes to run a batch's lines as jobs, and to end those jobs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from synapse.domain.file_batch import FileBatch
from synapse.domain.job import Failure, Job, JobId, JobState
from synapse.ports import BlobStore, Clock, JobQueue, JobStore, Registry, Telemetry
from synapse.ports.file_batches import LineCodec

EXPIRED = Failure("batch_expired", "the batch's window passed before this request was done")
CANCELLED = Failure("batch_cancelled", "the batch was cancelled before this request was done")


@dataclass(frozen=True, slots=True)
class LineTools:
    """What it takes to run lines as jobs.

    `blobs` holds what is too large for a record and the parts of the output, `file_blobs` the
    files; `abort` stops a job that runs where we can reach it.
    """

    store: JobStore
    queue: JobQueue
    blobs: BlobStore
    file_blobs: BlobStore
    registry: Registry
    codec: LineCodec
    telemetry: Telemetry
    clock: Clock
    new_id: Callable[[], str]
    abort: Callable[[JobId], None]

    async def end(self, batch: FileBatch, line: int) -> Job | None:
        """End a line's job if it is open; the job as it stands then, None if there is none."""
        job_id = batch.job_id(line)
        job = await self.store.get(job_id)
        if job is None or job.state.is_final:
            return job
        expired = batch.has_expired_at(self.clock())
        state = JobState.EXPIRED if expired else JobState.CANCELLED
        ended = await self.store.close(
            job_id, state, EXPIRED if expired else CANCELLED, self.clock()
        )
        if ended is None:
            return await self.store.get(job_id)
        self.abort(job_id)
        self.telemetry.ended(ended)
        return ended
