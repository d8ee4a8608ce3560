"""What it takes to run a batch's lines as jobs, and to end those jobs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from synapse.application.intake import SubmitJob, job_need, message_of
from synapse.application.metering import Ask, Metering
from synapse.application.payloads import fetch, stowed
from synapse.application.side_by_side import all_ended
from synapse.domain.errors import LimitReached, Unavailable
from synapse.domain.file_batch import FileBatch
from synapse.domain.job import Failure, Job, JobId, JobState
from synapse.domain.limiting import CONCURRENCY_RETRY_S
from synapse.domain.metering import is_limited
from synapse.domain.model import ModelSpec
from synapse.ports import BlobStore, Clock, JobQueue, JobStore, Registry, Telemetry
from synapse.ports.file_batches import LineCodec

logger = logging.getLogger(__name__)

EXPIRED = Failure("batch_expired", "the batch's window passed before this request was done")
CANCELLED = Failure("batch_cancelled", "the batch was cancelled before this request was done")


class NoRoom(Exception):
    """A line does not fit within its account's limits yet; look again in `wait_s`."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(wait_s)
        self.wait_s = wait_s


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
    metering: Metering | None = None

    def new_part(self) -> str:
        """What the name of a part begins with."""
        return self.new_id()[-12:]

    async def counted(
        self, command: SubmitJob, spec: ModelSpec, job: Job, *, has_open: bool
    ) -> Job:
        """A line's job, counted against the limits of its account, unless it was submitted before.

        What is counted of a job that is then not recorded stays so for the next step to find.

        Raises:
            NoRoom: it may fit later: at the pace of the batch's own lines where some are open
                (`has_open`) and what is under way is in the way.
            LimitReached: it will not.
        """
        if self.metering is None or not is_limited(command.caller):
            return job
        if await self.store.get(job.id) is not None:
            # By an earlier step, which was not recorded.
            return job
        need = job_need(command, spec)
        at_most_s = job.deadline_at - job.created_at
        ask = Ask(command.caller, spec, command.input, need, at_most_s, command.length_at)
        try:
            await self.metering.admit_job(ask, job.id, job.deadline_at)
        except LimitReached as error:
            wait_s = error.retry_after_s
            if has_open and wait_s == CONCURRENCY_RETRY_S:
                wait_s = 0  # the batch's own lines make room, and its pace is that of those
            if wait_s is None:
                raise
            raise NoRoom(wait_s) from error
        return replace(job, metered=True)

    async def record(self, jobs: Sequence[Job]) -> Sequence[Job]:
        """Record lines' jobs, unless an earlier step did; the jobs as they stand.

        Their inputs are stored and they recorded side by side, as many at a time as are given.
        None of them is on its way any more when this fails: nobody would look for it.
        """
        return await all_ended([self._recorded(job) for job in jobs])

    async def _recorded(self, job: Job) -> Job:
        job = await stowed(self.blobs, job)
        try:
            await self.store.create(job)
        except ValueError:
            return await self.store.get(job.id) or job
        self.telemetry.submitted(job)
        return job

    async def send(self, jobs: Sequence[Job]) -> bool:
        """Tell the queue of recorded jobs; False if it is full."""
        waiting = [message_of(job) for job in jobs if job.state is JobState.QUEUED]
        try:
            await self.queue.send(waiting)
        except Unavailable as error:
            # They are recorded: the sweeper sends them when there is room again.
            logger.warning("lines not queued yet: %s", error.message, extra={"n": len(waiting)})
            return False
        return True

    async def answer(self, job: Job | None) -> str | None:
        """What a job was answered; None if it was not, or the answer is gone."""
        if job is None or job.state is not JobState.COMPLETED or job.result is None:
            return None
        try:
            return await fetch(self.blobs, job.result)
        except KeyError:
            return None

    async def end(self, batch: FileBatch, line: int) -> Job | None:
        """End a line's job if it is open; the job as it stands then, None if there is none."""
        job_id = batch.job_id(line)
        job = await self.store.get(job_id)
        if job is None and self.metering is not None and is_limited(batch.caller):
            # A step that was lost may have counted it.
            await self.metering.forget_job(batch.tenant, job_id, batch.expires_at)
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
