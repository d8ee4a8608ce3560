"""Run one batch on one pool: claim its jobs, ask the engine, write each outcome as it comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace

from synapse.application.accounting import Accounting
from synapse.application.batch_receipts import BatchReceipts, BatchRun
from synapse.application.cold_start import ColdStarts
from synapse.application.entrance import Begin, Entrance, Gate
from synapse.application.in_line import Part
from synapse.application.payloads import decode_input, encode_result, fetch, stow
from synapse.application.placement import Place, only_worker
from synapse.application.revocations import Revocations, end_unrun
from synapse.application.routing import affinity_of
from synapse.application.side_by_side import all_ended
from synapse.application.unwritten import Known, Unwritten
from synapse.domain.batching import Batch, filling
from synapse.domain.errors import (
    EngineError,
    EngineFull,
    EngineLost,
    EngineTimeout,
    EngineUnavailable,
    Unavailable,
)
from synapse.domain.inference import ModelInput, Result
from synapse.domain.job import (
    Failure,
    Job,
    JobId,
    JobState,
    Lease,
    Outcome,
    urgency,
)
from synapse.domain.model import ModelSpec, ServiceSample, Task
from synapse.domain.pool import Pool
from synapse.domain.sweep import EXPIRED
from synapse.ports import (
    BlobStore,
    Clock,
    Entry,
    InferenceEngine,
    InferenceRequest,
    JobStore,
    Registry,
    Telemetry,
)

logger = logging.getLogger(__name__)


def _ignore(batch: Batch, items: int) -> None:
    """Nobody counts the free slots."""


@dataclass(slots=True)
class BatchRunner:
    """The runner: the same on every pool and on both targets.

    `lease_s` is how long a claimed job is ours. `entrance` lets jobs in where nobody else has
    looked whether there are slots for them: it is asked before any is claimed, so that what finds
    none stays in its queue, and again before the engine is.
    `items_begin` is told how many items of a batch the engine is about to be asked for, each time
    that the batch is tried: those that were cancelled meanwhile need no slot, nor do those of which
    only the end is to be written again (`unwritten`). `items_left` is told each time the engine is
    done with a job's items, whatever came of them, so that their slots can be filled again; a job
    that no worker took keeps the slots in which it is tried again. `place` chooses the worker for
    what is sent to the engine together.
    """

    store: JobStore
    blobs: BlobStore
    registry: Registry
    engine: InferenceEngine
    telemetry: Telemetry
    clock: Clock
    lease_s: float = 600.0
    items_begin: Callable[[Batch, int], None] = _ignore
    items_left: Callable[[Batch, int], None] = _ignore
    place: Place = only_worker
    entrance: Entrance | None = None
    cold_starts: ColdStarts | None = None
    accounting: Accounting | None = None
    revocations: Revocations | None = None
    unwritten: Unwritten = field(default_factory=Unwritten)
    _streams: dict[JobId, asyncio.Task[None]] = field(default_factory=dict)

    async def run(self, batch: Batch, pool: Pool) -> None:
        """Bring every job of the batch that still wants running to its end.

        Jobs that were cancelled, have expired or are run by somebody else are left out, so that
        a batch delivered twice does no harm.

        Raises:
            EngineUnavailable: some jobs never got to work, or their records could not be reached;
                run the same batch again, here or on another pool. Those that no worker took wait
                until then; others that have not ended stay RUNNING under this batch's lease.
            EngineFull: likewise, but give the batch back: others were let in, and were long there.
            EngineLost: the worker went down with some jobs; they stay RUNNING likewise.
        """
        try:
            await self._run(batch, pool)
        except Unavailable as error:
            # A disk that is full, a table that is throttled: no worker was lost.
            raise EngineUnavailable(error.message) from error

    @property
    def _receipts(self) -> BatchReceipts:
        return BatchReceipts(self.clock, self.accounting, self.cold_starts)

    async def _run(self, batch: Batch, pool: Pool) -> None:
        spec = await self.registry.model(batch.model)
        if spec is None:
            raise EngineUnavailable(f"model {batch.model!r} is not in the catalogue")
        guarded = nullcontext() if self.entrance is None else self.entrance.gate(spec, pool, batch)
        async with guarded as gate:
            await self._run_through(gate, batch, spec, pool)

    async def _run_through(
        self, gate: Gate | None, batch: Batch, spec: ModelSpec, pool: Pool
    ) -> None:
        run = await self._claim(gate, batch, spec, pool)
        if run is None:
            return
        requests = await self._requests(run)
        self.items_begin(batch, sum(run.items[request.id] for request in requests))
        run.started_at = self.clock()  # the worker has nothing to do with fetching inputs
        unwritten: Unavailable | None = None
        try:
            await self._infer(run, requests)
        except Unavailable as error:
            unwritten = error
        finally:
            await self._report(run)
        await self._spare(run)
        if run.lost is not None:  # also where an end could not be written: it has to be told
            raise run.lost
        if unwritten is not None:
            raise unwritten
        if run.retry is not None:
            raise EngineFull(run.retry.message) if run.was_long else run.retry

    async def _spare(self, run: BatchRun) -> None:
        """Jobs that no worker had wait again: they have lost none, and used nothing if they end.

        Where a worker was lost so do those whose end is known: who gives the batch back sees that.
        """
        if run.lost is None and run.retry is None:
            return
        spared = [job for job in run.jobs.values() if job.id not in run.workers]
        if run.lost is not None:
            spared += [run.jobs[each] for each in run.workers if each in self.unwritten]
        await all_ended([self._put_back(job) for job in spared])

    async def _put_back(self, job: Job) -> None:
        with suppress(Unavailable):
            await self.store.requeue(job, self.clock(), lost=False)

    def abort(self, job_id: JobId) -> None:
        """Stop the engine's work on a job that runs here on its own stream; else do nothing."""
        task = self._streams.get(job_id)
        if task is not None:
            task.cancel()

    async def _claim(
        self, gate: Gate | None, batch: Batch, spec: ModelSpec, pool: Pool
    ) -> BatchRun | None:
        left, items = batch.job_ids, batch.items_of_jobs
        room = batch.slots if gate is None else gate.most
        now = self.clock()
        lease = Lease(owner=batch.id, expires_at=now + self.lease_s)
        jobs: list[Job] = []
        while left and room > 0:
            number = filling(items, room)
            claimed = await self.store.claim(left[:number], lease, now)
            left, items = left[number:], items[number:]
            room -= sum(job.items for job in claimed)
            jobs += claimed
        if not jobs:
            return None
        run = BatchRun(batch, spec, pool, lease, {job.id: job for job in jobs}, now, gate)
        if left:
            run.retry = EngineUnavailable(f"pool {pool.name!r} has no slots for all of the batch")
        return run

    async def _requests(self, run: BatchRun) -> list[InferenceRequest]:
        """What the engine is asked."""
        jobs = [job for job in run.jobs.values() if not await self._is_over(run, job)]
        inputs = await self._inputs(jobs)
        asked = []
        for job, value in zip(jobs, inputs, strict=True):
            if value is None:
                failure = Failure("input_lost", "the job's stored input is gone; submit it again")
                lost = Outcome(job.id, JobState.FAILED, failure=failure, unrun=True)
                await self._end(run, lost)
                continue
            run.items[job.id] = value.samples
            asked.append((job, value))
        return [
            InferenceRequest(
                id=job.id,
                timeout_s=self._left_s(run, job),
                input=value,
                priority=urgency(job.sla, job.priority),
                tier=job.sla,
            )
            for job, value in asked
        ]

    async def _is_over(self, run: BatchRun, job: Job) -> bool:
        """Whether a job ends here, as it did before if only its end could not be written."""
        if await self._is_unrun(run, job):
            self.unwritten.take(job.id)
            return True
        known = self.unwritten.take(job.id)
        if known is not None:
            try:
                await self._write(run, known.outcome, known.text)
            except Unavailable as error:
                # Others of the batch may be written all the same: a large result is stored apart.
                run.retry = EngineUnavailable(error.message)
        return known is not None

    def _left_s(self, run: BatchRun, job: Job) -> float:
        """How much time the engine has for a job that is sent to it now."""
        return min(job.deadline_at, run.engine_until) - self.clock()

    async def _is_unrun(self, run: BatchRun, job: Job) -> bool:
        """Whether a job ends here, and no engine is to be asked."""
        unrun = await end_unrun(job, self.clock(), self.revocations)
        if unrun is not None:
            await self._end(run, unrun)
        return unrun is not None

    async def _inputs(self, jobs: Sequence[Job]) -> Sequence[ModelInput | None]:
        """What they carry; what is stored apart is fetched side by side."""
        if all(job.payload.inline is not None for job in jobs):
            return [await self._input(job) for job in jobs]
        return await asyncio.gather(*(self._input(job) for job in jobs))

    async def _input(self, job: Job) -> ModelInput | None:
        """A job's input; None if it is gone."""
        try:
            return decode_input(await fetch(self.blobs, job.payload))
        except KeyError:
            return None

    async def _infer(self, run: BatchRun, requests: Sequence[InferenceRequest]) -> None:
        """Send each request on its own, so that one can be stopped alone; texts go together.

        As many of them as a worker takes at once: each part finds a worker of its own.
        """
        together = 1
        if run.spec.task is Task.TEXT:
            slots = run.pool.slots_of(run.spec)
            together = max(1, len(requests)) if run.pool.is_fixed else slots
        parts = [requests[at : at + together] for at in range(0, len(requests), together)]
        begun: list[tuple[Part, asyncio.Task[None]]] = []

        def begin(part: Part, entry: Entry | None) -> None:
            run.let_in_at.update((request.id, self.clock()) for request in part)
            if entry is not None:
                run.ahead.update((request.id, entry.ahead) for request in part)
            task = asyncio.create_task(self._stoppable(run, part, entry))
            begun.append((part, task))
            if len(part) == 1:
                self._streams[part[0].id] = task

        try:
            await self._let_in(run, parts, begin)
            results = await asyncio.gather(*(task for _, task in begun), return_exceptions=True)
            failed: list[Exception] = []
            for (part, _), result in zip(begun, results, strict=True):
                # An aborted stream is no error of the batch; whatever else escapes is.
                if isinstance(result, asyncio.CancelledError):
                    await self._receipts.charge_stopped(run, part[0].id)
                elif isinstance(result, Exception):
                    failed.append(result)
            if failed:
                raise failed[0]
        finally:
            for _, task in begun:
                task.cancel()
            for request in requests:
                self._streams.pop(request.id, None)

    async def _let_in(self, run: BatchRun, parts: Sequence[Part], begin: Begin) -> None:
        """Begin the parts that may; the others are tried again."""
        if run.gate is None:
            for part in parts:
                begin(part, None)
            return
        why = f"pool {run.pool.name!r} is full, or kept for better tiers"
        try:
            # Seen by others first, one that is RUNNING counts as wholly used.
            await run.gate.let_in(
                parts, begin, lambda each: run.jobs[each.id].deadline_at <= self.clock()
            )
        except EngineUnavailable as error:
            why = error.message
        if any(each.id not in run.let_in_at for part in parts for each in part):
            run.retry = EngineUnavailable(why)

    async def _stoppable(self, run: BatchRun, requests: Part, entry: Entry | None) -> None:
        """Stream them; if that is stopped they hold their slots, and are paid for, until then."""
        try:
            await self._stream(run, requests, entry)
        except asyncio.CancelledError:
            for request in requests:
                if request.id not in run.left_at:
                    run.left_at[request.id] = self.clock()
                    self.items_left(run.batch, run.items[request.id])
            raise

    async def _stream(self, run: BatchRun, requests: Part, entry: Entry | None) -> None:
        writes: list[asyncio.Task[None]] = []
        try:
            await self._ask(run, await self._still_wanted(run, requests), writes)
        finally:
            if run.gate is not None:
                await run.gate.leave(entry)
            # What is known is written, also if the rest breaks off, and all of it is waited for: an
            # end on its way passes its job off as ended. Who then tries the batch again, or gives
            # it back, leaves it out, and if that end fails nobody is at work on the job any more.
            await all_ended(writes)

    async def _still_wanted(self, run: BatchRun, requests: Part) -> Part:
        """They may have waited: those whose time was up meanwhile end, the others have less."""
        if run.gate is None:
            return requests
        wanted = []
        for request in requests:
            job = run.jobs[request.id]
            if not await self._is_unrun(run, job):
                wanted.append(replace(request, timeout_s=self._left_s(run, job)))
        return wanted

    async def _ask(self, run: BatchRun, requests: Part, writes: list[asyncio.Task[None]]) -> None:
        """Ask the engine, and begin to write what it answers."""
        if not requests:
            return
        affinity = affinity_of(run.spec, requests[0].input)
        was_lost = any(run.jobs[request.id].losses for request in requests)
        try:
            pool = await self.place(run.spec, run.pool, affinity, wary=was_lost)
        except (EngineUnavailable, Unavailable) as error:
            # That nobody knows who is up is no fault of the jobs: they are tried again.
            run.retry = EngineUnavailable(error.message)
            return
        run.workers.update((request.id, pool.worker) for request in requests)
        together = sum(run.items[request.id] for request in requests)
        async for job_id, outcome in self.engine.infer(run.spec, pool, requests):
            run.left_at[job_id] = self.clock()
            if run.gate is not None and isinstance(outcome, EngineLost):
                run.gate.shut()  # who comes next would go the same way
            # What is answered is written, and paid for, though its job is cancelled by now.
            self._streams.pop(job_id, None)
            writes.append(asyncio.create_task(self._record(run, job_id, outcome, together)))

    async def _record(
        self, run: BatchRun, job_id: JobId, outcome: Result | EngineError, together: int
    ) -> None:
        if not isinstance(outcome, EngineUnavailable):
            self.items_left(run.batch, run.items[job_id])
        if not isinstance(outcome, EngineError):
            run.finished += run.items[job_id]
            run.busy_s += run.items[job_id] * run.slot_s(job_id, self.clock(), together)
            await self._complete(run, job_id, outcome)
            return
        run.errors += 1
        if isinstance(outcome, EngineLost):
            run.lost = outcome
        elif isinstance(outcome, EngineUnavailable):
            run.retry = outcome
            run.workers.pop(job_id, None)  # none took it: it has no share in what one costs
        else:
            await self._write(run, self._refused(run, run.jobs[job_id], outcome), None)

    def _refused(self, run: BatchRun, job: Job, error: EngineError) -> Outcome:
        # The engine's clock may be some milliseconds ahead of ours: what it was told counts too.
        was_told_deadline = job.deadline_at <= run.engine_until
        is_over = was_told_deadline or job.deadline_at <= self.clock()
        if isinstance(error, EngineTimeout) and is_over:
            return Outcome(job.id, JobState.EXPIRED, failure=EXPIRED)
        failure = Failure(error.code, error.message, error.param)
        return Outcome(job.id, JobState.FAILED, failure=failure)

    async def _complete(self, run: BatchRun, job_id: JobId, result: Result) -> None:
        outcome = Outcome(job_id, JobState.COMPLETED, usage=result.usage)
        await self._write(run, outcome, encode_result(result))

    async def _write(self, run: BatchRun, outcome: Outcome, text: str | None) -> None:
        """Write an end that an engine has told; one that cannot be written is kept."""
        # So far: storing the result is no work of the worker's.
        ended = outcome = await self._reckoned(run, outcome)
        # The key is the lease's own: a late duplicate cannot overwrite the published result.
        key = f"jobs/{outcome.job_id}/result-{run.batch.id}"
        try:
            if text is not None:
                ended = replace(outcome, result=await stow(self.blobs, key, text))
            await self._end(run, ended)
        except Unavailable:
            deadline_at = run.jobs[outcome.job_id].deadline_at
            self.unwritten.keep(Known(outcome, text, deadline_at), self.clock())
            raise

    async def _reckoned(self, run: BatchRun, outcome: Outcome) -> Outcome:
        """An end with where and when the job ran, and its cost; what it has of that stays."""
        if outcome.unrun:
            return outcome
        if outcome.served is None:
            outcome = replace(outcome, served=await self._receipts.served(run, outcome.job_id))
        if run.gate is not None and outcome.began_at is None:
            began_at = run.let_in_at.get(outcome.job_id, self.clock())
            outcome = replace(outcome, began_at=began_at)
        return outcome

    async def _end(self, run: BatchRun, outcome: Outcome) -> None:
        outcome = await self._reckoned(run, outcome)
        job = await self.store.settle(outcome, run.lease.owner, self.clock())
        if job is None:
            late = await self.store.get(outcome.job_id)
            await self._receipts.charge_if_closed(run, late, outcome)
            return
        self.telemetry.ended(job)
        if self.cold_starts is not None:
            await self.cold_starts.job_ended(job)

    async def _report(self, run: BatchRun) -> None:
        now = self.clock()
        if run.begun:
            ran = replace(run.batch, job_ids=run.begun)
            self.telemetry.batch_ran(ran, run.pool, now - run.first_began_at, run.errors)
        if run.finished:
            sample = ServiceSample(run.spec.name, run.pool.name, run.finished, run.busy_s)
            try:
                await self.registry.record_service(sample, now)
            except Unavailable as error:
                # It is for estimates. What became of the jobs must not be hidden by it.
                logger.warning("service rate not written: %s", error.message)
