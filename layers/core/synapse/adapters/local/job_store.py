"""The records of jobs in SQLite, for one process with one event loop."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from synapse.adapters.local.database import Database
from synapse.adapters.local.group_commit import GroupCommit
from synapse.adapters.local.job_memory import JobMemory
from synapse.adapters.local.job_rows import SELECT_JOB, KeyRow, job_of, select_jobs
from synapse.adapters.local.recovery import Recovered, Recovery
from synapse.adapters.local.retention import DeleteBlobs, purge
from synapse.adapters.local.watchers import Watchers
from synapse.domain.errors import IdempotencyConflict
from synapse.domain.job import (
    Failure,
    Job,
    JobId,
    JobState,
    Lease,
    Outcome,
    require_final,
    sources,
)
from synapse.domain.sweep import SweepPolicy
from synapse.ports import Clock, Created, Idempotency

T = TypeVar("T")

CACHE_BYTES = 64 * 1024 * 1024
PAGE = 1000
RETENTION_S = 7 * 86_400.0


class SqliteJobStore:
    """Decides on the event loop with the rules of `domain.job`, and writes in groups behind it.

    What is decided between two `await`s is atomic, and this process is the only writer, so no
    rule is said again in SQL. An end is decided at once and shown once it is on the disk.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        retention_s: float = RETENTION_S,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        """Keep jobs for `retention_s` after their deadline, by `clock`."""
        self._database = database
        self._clock = clock
        self._retention_s = retention_s
        self._memory = JobMemory(cache_bytes)
        self._watchers = Watchers()
        self._commit = GroupCommit(database, self._memory, self._watchers)
        self._keys_in_use: dict[tuple[str, str], asyncio.Event] = {}

    @property
    def groups_committed(self) -> int:
        """How many transactions the writes so far have shared."""
        return self._commit.groups

    async def create(self, job: Job, idempotency: Idempotency | None = None) -> Created:
        """Record a new job durably before returning."""
        if idempotency is None:
            await self._add([job])
            return Created(job, is_new=True)
        async with self._alone_with(job.tenant, idempotency.key):
            earlier = await self.made_with(job.tenant, idempotency)
            if earlier is not None:
                return Created(earlier, is_new=False)
            key = KeyRow(job.tenant, idempotency.key, idempotency.fingerprint, job.id)
            await self._add([job], [key])
            return Created(job, is_new=True)

    @asynccontextmanager
    async def recording(self, job: Job) -> AsyncIterator[None]:
        """See the port: within the block the disk is flushed, and who claims finds it in memory."""
        created = await self._unless_taken([job], self._commit.begin(job))
        yield
        await created

    async def made_with(self, tenant: str, idempotency: Idempotency) -> Job | None:
        """The job that an earlier request with the key made.

        Raises:
            IdempotencyConflict: that request was another one.
        """
        row = await self._database.read(partial(_select_key, tenant=tenant, key=idempotency.key))
        if row is None:
            return None
        fingerprint, job = row
        if not self._is_kept(job):
            return None
        if fingerprint != idempotency.fingerprint:
            raise IdempotencyConflict(
                "Idempotency-Key: used before with another request; use a new key",
                param="Idempotency-Key",
            )
        return self._memory.shown(job.id) or job

    async def create_many(self, jobs: Sequence[Job]) -> None:
        """Record several new jobs durably before returning; all or an error."""
        if jobs:
            await self._add(jobs)

    async def get(self, job_id: JobId) -> Job | None:
        """The job, or None if there is none (or its retention has passed)."""
        job = self._memory.shown(job_id)
        if job is None:
            job = (await self._database.read(partial(select_jobs, ids=[job_id]))).get(job_id)
        return job if job is not None and self._is_kept(job) else None

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, now: float) -> list[Job]:
        """Take the jobs that may be taken (`Job.can_be_claimed`), in the order asked."""
        jobs = await self._decided(list(dict.fromkeys(job_ids)))
        claimed = [job.claimed(lease, now) for job in jobs if job.can_be_claimed(lease.owner, now)]
        for job in claimed:
            self._commit.change(job)
        return claimed

    async def settle(self, outcome: Outcome, owner: str, now: float) -> Job | None:
        """Write a running job's end, if `owner` still holds its lease; durable on return."""
        for job in await self._newest([outcome.job_id]):
            if job.is_held_by(owner) and job.state in sources(outcome.state):
                ended = job.settled(outcome, now)
                await self._commit.end(ended, before=job)
                return ended
        await self._commit.ending(outcome.job_id)
        return None

    async def close(
        self, job_id: JobId, state: JobState, failure: Failure | None, now: float
    ) -> Job | None:
        """End an open job from outside, whoever runs it; durable on return."""
        require_final(state)
        for job in await self._newest([job_id]):
            if job.state in sources(state):
                ended = job.closed(state, failure, now)
                await self._commit.end(ended, before=job)
                return ended
        await self._commit.ending(job_id)
        return None

    async def requeue(
        self, job: Job, now: float, *, lost: bool, unanswered: bool = False
    ) -> Job | None:
        """Put `job` back to QUEUED (`Job.requeued`) if it still stands exactly as given."""
        for current in await self._decided([job.id]):
            if not current.state.is_final and _stands(current, job):
                again = current.requeued(now, lost=lost, unanswered=unanswered)
                self._commit.change(again)
                return again
        return None

    async def due(self, now: float, limit: int) -> list[Job]:
        """Open jobs that the sweeper should look at (`Job.due_at` ≤ now), earliest first."""
        await self._commit.flush()
        jobs = await self._database.read(partial(_select_due, now=now, limit=limit))
        return [job for job in jobs if self._is_kept(job)]

    async def watch(self, job_id: JobId, timeout_s: float) -> None:
        """Return when the job may have ended, or after `timeout_s` at the latest."""

        async def is_over() -> bool:
            job = await self.get(job_id)
            return job is None or job.state.is_final

        await self._watchers.wait(job_id, timeout_s, is_over)

    async def recover(self, now: float, policy: SweepPolicy) -> Recovered:
        """Put right what the last process left: call it once, before anything else.

        Whatever was RUNNING lost its worker with that process: it goes back to QUEUED, or ends
        as FAILED (`worker_lost`) if the policy has had enough of it. What is past its deadline
        ends as EXPIRED.
        """
        recovered = await Recovery(self._database).recover(now, policy)
        self._memory.forget_saved()
        return recovered

    def queued(self, page: int = PAGE) -> AsyncIterator[list[Job]]:
        """All QUEUED jobs in pages, in the order of their acceptance, to refill the queue."""
        return Recovery(self._database).queued(page)

    async def release(self, now: float) -> int:
        """Put all RUNNING jobs back to QUEUED, none of them lost: the end of an orderly stop.

        Call it when the runners have stopped; returns how many there were.
        """
        await self._commit.flush()
        released = await Recovery(self._database).release(now)
        self._memory.forget_saved()
        return released

    async def purge(self, delete_blobs: DeleteBlobs) -> int:
        """Forget jobs whose retention has passed, and their blobs; returns how many.

        `delete_blobs` is awaited with the keys before the records go, so that a crash between
        the two leaves nothing behind.
        """
        due_before = self._clock() - self._retention_s
        purged = await purge(self._database, due_before, delete_blobs)
        if purged:
            self._memory.forget_saved()
        return purged

    async def aclose(self) -> None:
        """Write what was put off. The database stays open: its opener closes it."""
        await self._commit.close()

    async def _add(self, jobs: Sequence[Job], keys: Sequence[KeyRow] = ()) -> None:
        await self._unless_taken(jobs, self._commit.create(jobs, keys))

    async def _unless_taken(self, jobs: Sequence[Job], created: Awaitable[T]) -> T:
        try:
            return await created
        except sqlite3.IntegrityError as error:
            ids = [job.id for job in jobs]
            stored = await self._database.read(partial(select_jobs, ids=ids))
            taken = [i for i in ids if i in stored or ids.count(i) > 1]
            raise ValueError(f"there is a job {', '.join(taken[:1])} already") from error

    async def _decided(self, job_ids: list[JobId]) -> list[Job]:
        """As `_newest`, once it is known of every end under way whether it is on the disk."""
        while True:
            jobs = await self._newest(job_ids)
            # Only now: an end may have come while others were read.
            if not self._commit.are_ending(job_ids):
                return jobs
            await self._commit.ends_known(job_ids)

    async def _newest(self, job_ids: list[JobId]) -> list[Job]:
        """The newest states of those jobs that exist; nothing changes them before we do."""
        while True:
            generation = self._memory.generation
            known = {job_id: self._memory.newest(job_id) for job_id in job_ids}
            missing = [job_id for job_id, job in known.items() if job is None]
            if missing:
                known |= await self._database.read(partial(select_jobs, ids=missing))
            # What was read, or known before, may be outdated by now, but then memory knows better.
            if not self._memory.may_have_forgotten_since(generation):
                found = (self._memory.newest(i) or known[i] for i in job_ids)
                return [job for job in found if job is not None and self._is_kept(job)]

    def _is_kept(self, job: Job) -> bool:
        return job.deadline_at + self._retention_s > self._clock()

    @asynccontextmanager
    async def _alone_with(self, tenant: str, key: str) -> AsyncIterator[None]:
        """Let one request at a time find out whether its key is new."""
        while (busy := self._keys_in_use.get((tenant, key))) is not None:
            await busy.wait()
        self._keys_in_use[tenant, key] = asyncio.Event()
        try:
            yield
        finally:
            self._keys_in_use.pop((tenant, key)).set()


def _stands(current: Job, given: Job) -> bool:
    """Whether nobody has moved the job since it was `given`."""
    owner = current.lease.owner if current.lease else None
    given_owner = given.lease.owner if given.lease else None
    return (current.state, owner, current.sends) == (given.state, given_owner, given.sends)


def _select_due(connection: sqlite3.Connection, now: float, limit: int) -> list[Job]:
    rows = connection.execute(
        f"{SELECT_JOB} WHERE due_at <= ? ORDER BY due_at LIMIT ?", (now, limit)
    )
    return [job_of(*row) for row in rows.fetchall()]


def _select_key(connection: sqlite3.Connection, tenant: str, key: str) -> tuple[str, Job] | None:
    row = connection.execute(
        "SELECT fingerprint, payload, result, doc FROM idempotency"
        " JOIN jobs ON jobs.id = job_id WHERE tenant = ? AND key = ?",
        (tenant, key),
    ).fetchone()
    return (row[0], job_of(*row[1:])) if row else None
