"""What a process finds of the one before it: jobs that nobody runs any more, and jobs that wait."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from synapse.adapters.local.database import Database
from synapse.adapters.local.job_rows import SELECT_JOB, job_of, row_of, update_jobs
from synapse.adapters.local.usage import count_jobs
from synapse.domain.job import Job, JobState
from synapse.domain.sweep import EXPIRED, LOST, SweepPolicy

PAGE = 500


@dataclass(frozen=True, slots=True)
class Recovered:
    """What was done to the jobs found RUNNING or past their deadline."""

    requeued: int = 0
    expired: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Recovery:
    """Works on the records directly, page by page: a million waiting jobs are never in memory."""

    database: Database

    async def recover(self, now: float, policy: SweepPolicy) -> Recovered:
        """Requeue, expire or fail what the last process left; see `SqliteJobStore.recover`."""

        def decide(job: Job) -> Job | None:
            if job.deadline_at <= now:
                return job.closed(JobState.EXPIRED, EXPIRED, now)
            if job.state is not JobState.RUNNING:
                return None
            if policy.is_spent(job, lost=True):
                return job.closed(JobState.FAILED, LOST, now)
            return job.requeued(now, lost=True)

        numbers = await self.database.read(partial(_select_stranded, now=now))
        states = await self._change(numbers, decide)
        return Recovered(
            requeued=states.count(JobState.QUEUED),
            expired=states.count(JobState.EXPIRED),
            failed=states.count(JobState.FAILED),
        )

    async def release(self, now: float) -> int:
        """Requeue what runs; see `SqliteJobStore.release`."""

        def decide(job: Job) -> Job | None:
            return job.requeued(now, lost=False) if job.state is JobState.RUNNING else None

        return len(await self._change(await self.database.read(_select_running), decide))

    async def queued(self, page: int) -> AsyncIterator[list[Job]]:
        """All QUEUED jobs, in the order of their acceptance."""
        numbers = await self.database.read(_select_queued)
        for part in _pages(numbers, page):
            jobs = await self.database.read(partial(_select_numbered, numbers=part))
            yield [job for job in jobs if job.state is JobState.QUEUED]

    async def _change(
        self, numbers: Sequence[int], decide: Callable[[Job], Job | None]
    ) -> list[JobState]:
        """Write what is decided of the jobs; returns the states of those that changed."""
        states: list[JobState] = []
        for part in _pages(numbers, PAGE):
            states += await self.database.write(partial(_decide, numbers=part, decide=decide))
        return states


def _pages(numbers: Sequence[int], size: int) -> list[Sequence[int]]:
    return [numbers[start : start + size] for start in range(0, len(numbers), size)]


def _decide(
    connection: sqlite3.Connection,
    numbers: Sequence[int],
    decide: Callable[[Job], Job | None],
) -> list[JobState]:
    decided = [decide(job) for job in _select_numbered(connection, numbers)]
    changed = [job for job in decided if job is not None]
    update_jobs(connection, [row_of(job) for job in changed])
    count_jobs(connection, [job for job in changed if job.state.is_final])
    return [job.state for job in changed]


def _select_stranded(connection: sqlite3.Connection, now: float) -> array[int]:
    return _numbers(connection, "state = 'RUNNING' OR due_at <= ?", now)


def _select_running(connection: sqlite3.Connection) -> array[int]:
    return _numbers(connection, "state = 'RUNNING'")


def _select_queued(connection: sqlite3.Connection) -> array[int]:
    return _numbers(connection, "state = 'QUEUED'")


def _numbers(connection: sqlite3.Connection, condition: str, *values: float) -> array[int]:
    """The open jobs' numbers in order of acceptance, read from their index alone."""
    rows = connection.execute(
        f"SELECT n FROM jobs WHERE due_at IS NOT NULL AND ({condition})", values
    )
    return array("q", sorted(number for (number,) in rows))


def _select_numbered(connection: sqlite3.Connection, numbers: Sequence[int]) -> list[Job]:
    marks = ",".join("?" * len(numbers))
    rows = connection.execute(f"{SELECT_JOB} WHERE n IN ({marks}) ORDER BY n", tuple(numbers))
    return [job_of(*row) for row in rows.fetchall()]
