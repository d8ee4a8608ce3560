"""Many callers, one transaction: whoever comes while the disk is busy shares the next flush."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from synapse.adapters.local.database import Database, is_the_database
from synapse.adapters.local.job_memory import JobMemory
from synapse.adapters.local.job_rows import KeyRow, insert_jobs, insert_keys, row_of, update_jobs
from synapse.adapters.local.usage import count_jobs
from synapse.adapters.local.watchers import Watchers
from synapse.domain.errors import Unavailable
from synapse.domain.job import Job, JobId

SAVE_LATER_S = 0.1
RETRY_LATER_S = 1.0


@dataclass(slots=True)
class Write:
    """What one caller wants on disk, all of it or nothing, and who waits for that.

    `changed` holds each job with the state that callers saw before. `flushing` is set when its
    statements are done and the disk has begun to flush them, if somebody waits for that.
    """

    new: Sequence[Job] = ()
    changed: Sequence[tuple[Job, Job]] = ()
    keys: Sequence[KeyRow] = ()
    flushing: asyncio.Event | None = None
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    error: Exception | None = None


class GroupCommit:
    """Brings jobs to the disk and tells the callers, in groups.

    Ends and creations are durable before their caller goes on. Claims and requeues need not be:
    a crash undoes them, which is what recovery would do with them anyway. They are written a
    little later, and mostly not at all, because the job's end overtakes them.
    """

    def __init__(self, database: Database, memory: JobMemory, watchers: Watchers) -> None:
        self._database = database
        self._memory = memory
        self._watchers = watchers
        self._waiting: list[Write] = []
        self._ends: dict[JobId, Write] = {}
        self._later: dict[JobId, Job] = {}
        self._creating: set[JobId] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._committing: asyncio.Task[None] | None = None
        self.groups = 0

    async def create(self, jobs: Sequence[Job], keys: Sequence[KeyRow] = ()) -> None:
        """Put new jobs on the disk, all or none.

        Raises:
            sqlite3.IntegrityError: one of them exists.
            Unavailable: they could not be written.
        """
        await self._enqueue(Write(new=jobs, keys=keys))

    async def begin(self, job: Job) -> asyncio.Future[None]:
        """Put a new job on the disk, as `create`, which is done when the future is.

        It may be changed when this returns, while the disk flushes: what is decided of it meanwhile
        is written after it, and comes to nothing if the flush fails. Not before: its statements
        and the loop would wait for each other's turns of the interpreter.

        Raises: as `create`, and so may the future.
        """
        flushing = asyncio.Event()
        write = Write(new=[job], flushing=flushing)
        created = _waiter(write)
        self._start(write)
        await flushing.wait()
        if created.done():
            await created
        return created

    async def end(self, ended: Job, before: Job) -> None:
        """Put a job's end on the disk; until then `before` is shown.

        Raises:
            Unavailable: it could not be written; the job stays what it was.
        """
        write = Write(changed=((ended, before),))
        self._memory.changed(ended, before)
        self._later.pop(ended.id, None)
        self._ends[ended.id] = write
        if ended.id not in self._creating:
            self._start(write)
        await _waiter(write)

    def change(self, job: Job) -> None:
        """Let a change be seen now and be written later."""
        self._memory.changed(job, job)
        if job.id not in self._creating:
            self._later[job.id] = job
            self._save_later(SAVE_LATER_S)

    async def ending(self, job_id: JobId) -> None:
        """Wait until the job's end, if one is under way, is on the disk.

        Raises:
            Unavailable: it could not be written.
        """
        write = self._ends.get(job_id)
        if write is not None:
            await _waiter(write)

    def are_ending(self, job_ids: Sequence[JobId]) -> bool:
        """Whether an end of one of the jobs is under way."""
        return any(job_id in self._ends for job_id in job_ids)

    async def ends_known(self, job_ids: Sequence[JobId]) -> None:
        """Wait until it is known of each end under way whether it is on the disk.

        One that fails leaves the job open: whoever passed it over would leave it to nobody.
        """
        for job_id in job_ids:
            with suppress(Unavailable):
                await self.ending(job_id)

    async def flush(self) -> None:
        """Write all that was put off.

        Raises:
            Unavailable: it could not be written, and is still put off.
        """
        if self._creating:
            await self._enqueue(Write())
        await self._enqueue(self._put_off())

    async def close(self) -> None:
        """Write what was put off and wait for all that is under way; errors are the callers'."""
        if self._timer is not None:
            self._timer.cancel()
        with suppress(Unavailable):
            await self.flush()
        while self._committing is not None:
            await asyncio.wait([self._committing])

    async def _enqueue(self, write: Write) -> None:
        self._start(write)
        await _waiter(write)

    def _start(self, write: Write) -> None:
        self._waiting.append(write)
        if self._committing is None:
            # A task starts in the loop's next turn: all who are ready in this one come along.
            self._committing = asyncio.get_running_loop().create_task(self._commit_all())

    async def _commit_all(self) -> None:
        try:
            while self._waiting:
                group, self._waiting = self._waiting, []
                await self._commit(group)
        finally:
            self._committing = None

    async def _commit(self, group: list[Write]) -> None:
        try:
            try:
                await self._database.write(self._saving(group))
            except Unavailable:
                raise
            except Exception:  # noqa: BLE001 - somebody's rows are at fault: find out whose
                await self._database.write(partial(_save_each, group))
        except Exception as error:  # noqa: BLE001 - raised in every waiter
            for write in group:
                write.error = error
        self.groups += 1
        for write in group:
            self._settle(write)

    def _saving(self, group: list[Write]) -> Callable[[sqlite3.Connection], None]:
        begun = [write for write in group if write.flushing is not None]
        if not begun:
            return partial(_save, group)
        loop = asyncio.get_running_loop()

        def save(connection: sqlite3.Connection) -> None:
            _save(group, connection)
            loop.call_soon_threadsafe(self._flushing, begun)

        return save

    def _flushing(self, begun: list[Write]) -> None:
        for write in begun:
            for job in write.new:
                self._memory.changed(job, job)
                self._creating.add(job.id)
            if write.flushing is not None:
                write.flushing.set()

    def _settle(self, write: Write) -> None:
        for job in write.new:
            self._created(job, write.error)
        for job, before in write.changed:
            if self._ends.get(job.id) is write:
                del self._ends[job.id]
            if write.error is None:
                self._memory.saved(job)
                if job.state.is_final:
                    self._watchers.wake(job.id)
            elif self._memory.is_newest(job):
                self._memory.changed(before, before)
                self._later[job.id] = before
        _tell(write)
        if self._later and write.error is not None:
            self._save_later(RETRY_LATER_S)

    def _created(self, job: Job, error: Exception | None) -> None:
        if error is None:
            self._memory.saved(job)
        if job.id in self._creating:
            self._creating.remove(job.id)
            self._follow(job, error)

    def _follow(self, job: Job, error: Exception | None) -> None:
        """Go on with what was decided of a job while it was being created."""
        end = self._ends.get(job.id)
        newest = self._memory.newest(job.id)
        if error is not None:
            self._memory.forget(job.id)
            if end is not None:
                del self._ends[job.id]
                end.error = Unavailable("the job could not be recorded")
                _tell(end)
        elif end is not None:
            self._start(end)
        elif newest is not None and newest is not job:
            self.change(newest)

    def _save_later(self, delay_s: float) -> None:
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(delay_s, self._save_now)

    def _save_now(self) -> None:
        self._timer = None
        if self._later:
            self._start(self._put_off())

    def _put_off(self) -> Write:
        jobs, self._later = self._later, {}
        return Write(changed=[(job, job) for job in jobs.values()])


def _waiter(write: Write) -> asyncio.Future[None]:
    waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    write.waiters.append(waiter)
    return waiter


def _tell(write: Write) -> None:
    if write.flushing is not None:
        write.flushing.set()
    for waiter in write.waiters:
        if waiter.done():
            continue
        if write.error is None:
            waiter.set_result(None)
        else:
            waiter.set_exception(_again(write.error))


def _again(error: Exception) -> Exception:
    """One exception each: a raised one collects its raiser's traceback."""
    if not isinstance(error, Unavailable):
        return error
    again = Unavailable(error.message, retry_after_s=error.retry_after_s, code=error.code)
    again.__cause__ = error.__cause__
    return again


def _save(writes: Sequence[Write], connection: sqlite3.Connection) -> None:
    insert_jobs(connection, [row_of(job) for write in writes for job in write.new])
    changed = [each for write in writes for each in write.changed]
    # Of several changes of a job the last: SQLite does not say which of them would win.
    newest = {job.id: job for job, _ in changed}
    update_jobs(connection, [row_of(job) for job in newest.values()])
    ended = [job for job, before in changed if job.state.is_final and not before.state.is_final]
    count_jobs(connection, ended)
    insert_keys(connection, [key for write in writes for key in write.keys])


def _save_each(writes: Sequence[Write], connection: sqlite3.Connection) -> None:
    for write in writes:
        connection.execute("SAVEPOINT alone")
        try:
            _save([write], connection)
        except Exception as error:
            if is_the_database(error):
                raise
            connection.execute("ROLLBACK TO alone")
            write.error = error
        connection.execute("RELEASE alone")
