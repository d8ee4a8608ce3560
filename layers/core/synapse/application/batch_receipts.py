"""A batch under way, and what its jobs are told: where they ran, and what that cost."""

from __future__ import annotations

from dataclasses import dataclass, field

from synapse.application.accounting import Accounting
from synapse.application.cold_start import ColdStarts
from synapse.application.entrance import Gate
from synapse.domain.admission import slot_time_s
from synapse.domain.batching import Batch
from synapse.domain.errors import EngineLost, EngineUnavailable
from synapse.domain.job import Job, JobId, JobState, Lease, Outcome, Served
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.receipt import NO_COST, Cost
from synapse.ports import Clock

LONG_S = 10.0
"""Behind items that take longer nobody waits in an execution, which ends after 300 s."""

SETTLE_MARGIN_S = 5.0
"""Kept between the engine's last moment and the end of the lease, for writing outcomes."""


@dataclass(slots=True)
class BatchRun:
    """One batch under way.

    `workers` are those that have or had a job, `items` how many each of them asks for; those that
    passed a gate did so at `let_in_at`, where so many items were `ahead` of them, and a job has
    left its worker at `left_at`. `finished` items held their slots for `busy_s` seconds, added up.
    """

    batch: Batch
    spec: ModelSpec
    pool: Pool
    lease: Lease
    jobs: dict[JobId, Job]
    started_at: float
    gate: Gate | None = None
    retry: EngineUnavailable | None = None
    lost: EngineLost | None = None
    finished: int = 0
    busy_s: float = 0.0
    errors: int = 0
    workers: dict[JobId, str] = field(default_factory=dict)
    items: dict[JobId, int] = field(default_factory=dict)
    let_in_at: dict[JobId, float] = field(default_factory=dict)
    ahead: dict[JobId, int] = field(default_factory=dict)
    left_at: dict[JobId, float] = field(default_factory=dict)

    @property
    def engine_until(self) -> float:
        """When the engine must be done, so that its answer is written before the lease is over."""
        return self.lease.expires_at - SETTLE_MARGIN_S

    @property
    def begun(self) -> tuple[JobId, ...]:
        """The jobs that are run: without a gate all that are claimed, else those it let in."""
        return tuple(self.jobs if self.gate is None else self.let_in_at)

    @property
    def first_began_at(self) -> float:
        """When the first of them went to its worker."""
        return min(self.let_in_at.values(), default=self.started_at)

    @property
    def was_long(self) -> bool:
        """Whether one that was let in was long at its worker."""
        took_s = [
            self.left_at[job] - at for job, at in self.let_in_at.items() if job in self.left_at
        ]
        return max(took_s, default=0.0) > LONG_S

    def began_at(self, job_id: JobId) -> float:
        """When the job went to its worker."""
        return self.let_in_at.get(job_id, self.started_at)

    def slot_s(self, job_id: JobId, now: float, together: int) -> float:
        """For how long each item of a job held its slot that ends now: its wait for one is none.

        So many items were sent to its worker together.
        """
        took_s = now - self.began_at(job_id)
        at_worker_s = slot_time_s(took_s, 0, together, self.pool.slots_of(self.spec))
        if self.gate is None or self.gate.slots is None:
            return at_worker_s
        in_pool_s = slot_time_s(took_s, self.ahead.get(job_id, 0), together, self.gate.slots)
        return min(at_worker_s, in_pool_s)


@dataclass(frozen=True, slots=True)
class BatchReceipts:
    """Reckons what jobs have cost, and counts that of those whose end does not tell of it."""

    clock: Clock
    accounting: Accounting | None = None
    cold_starts: ColdStarts | None = None

    async def served(self, run: BatchRun, job_id: JobId) -> Served:
        """Where the job ran, and what that cost; nothing where no worker had it."""
        starts = self.cold_starts
        cold = 0.0 if starts is None else await starts.cold_ms(run.jobs[job_id], run.spec)
        cost = await self._cost(run, job_id) if job_id in run.workers else NO_COST
        return Served(
            run.pool.name,
            run.pool.accelerator,
            len(run.jobs),
            run.workers.get(job_id, ""),
            run.batch.fallback,
            cold,
            cost.active_usd,
            cost.warm_usd,
        )

    async def charge_stopped(self, run: BatchRun, job_id: JobId) -> None:
        """Count what a job has cost that was stopped at its worker."""
        if self.accounting is not None and job_id in run.workers:
            await self.accounting.charge(run.jobs[job_id], await self._cost(run, job_id))

    async def charge_if_closed(self, run: BatchRun, job: Job | None, outcome: Outcome) -> None:
        """Count an end that comes too late: its job was cancelled, or expired, at its worker.

        One that is late for our own faults costs its caller nothing: it waits, or others have it.
        """
        if self.accounting is None or outcome.served is None or job is None:
            return
        # Of what a runner has ended the cost is counted with its end.
        was_closed = job.state in (JobState.CANCELLED, JobState.EXPIRED) and job.served is None
        was_ours = job.started_at == run.jobs[job.id].started_at
        if was_closed and was_ours:
            cost = Cost(outcome.served.active_usd, outcome.served.warm_usd)
            await self.accounting.charge(job, cost, outcome.usage)

    async def _cost(self, run: BatchRun, job_id: JobId) -> Cost:
        """What the job has cost: items beyond the slots of its worker take turns there.

        Unless they were let in by turns: then they are there one after the other.
        """
        if self.accounting is None:
            return NO_COST
        worker, of_worker = run.workers[job_id], run.pool.slots_of(run.spec)
        slots = sum(items for each, items in run.items.items() if run.workers.get(each) == worker)
        if run.gate is not None and run.gate.has_waited:
            slots = min(slots, max(of_worker, run.items[job_id]))
        if not run.pool.paid_by_call:  # else nobody is in the slots that these leave
            slots = max(slots, of_worker)
        ran_s = run.left_at.get(job_id, self.clock()) - run.began_at(job_id)
        return await self.accounting.cost(run.pool, ran_s, run.items[job_id], slots)
