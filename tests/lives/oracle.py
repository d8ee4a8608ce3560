"""Whether the promises about jobs were kept: while things go wrong, and when all is calm again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from synapse.domain.access import Limits
from synapse.domain.job import Job, JobId, JobState
from synapse.domain.metering import Reservation, ReservationId
from synapse.domain.sweep import SweepPolicy
from synapse.domain.usage import UsageKey, Used, summed, used_by
from tests.lives.rooms import SLOTS
from tests.lives.system import METER, System

ROUND_S = 400.0
ROUNDS = 60
"""Far more than the longest time a job may take in all, wherever the clock was set."""


class Oracle:
    """Watches the records of all jobs that may be there, accepted or not."""

    def __init__(self, system: System) -> None:
        self._system = system
        self._ended: dict[JobId, Job] = {}

    async def look(self) -> None:
        """What must hold at every moment."""
        for job in (await self._jobs()).values():
            first = self._ended.get(job.id)
            assert first is None or job == first, f"ended twice: {first}, then {job}"
            if job.state.is_final:
                self._ended[job.id] = job
        told = Counter(job.id for (job,) in self._system.telemetry.of("ended"))
        assert not told or max(told.values()) == 1, f"told of two ends: {told}"
        shown, is_open = self._system.at.under_way(METER)
        assert shown == is_open, f"the meter shows {shown} under way, {is_open} are reserved"

    async def judge_in_the_end(self) -> None:
        """Once nothing goes wrong any more: every job ends, and all counts are the same."""
        await self._calm()
        await self.look()
        jobs = await self._jobs()
        for job_id in self._system.accepted:
            assert job_id in jobs, f"{job_id} was accepted, and has no record"
        for job in jobs.values():
            await self._judge(job)
        self._one_job_a_key(jobs)
        self._telemetry_adds_up(jobs)
        await self._usage_adds_up(jobs)
        await self._meter_adds_up()

    async def _calm(self) -> None:
        """Let everybody do their work until there is none left."""
        system = self._system
        system.engine.fates = []
        system.rooms.set(SLOTS)
        for runner in list(system.engine.held):
            await system.wake(runner)
        for _ in range(ROUNDS):
            while system.messages or await self._received():
                await system.dispatch(range(len(system.messages)), keep=False)
            while system.orders:
                await system.run([system.orders.pop()])
            await system.sweep()
            jobs = await self._jobs()
            is_over = all(job.state.is_final for job in jobs.values())
            if is_over and await self._used() == _used_by(jobs):
                return
            system.clock.advance(ROUND_S)
        open_jobs = [job for job in (await self._jobs()).values() if not job.state.is_final]
        assert not open_jobs, f"accepted, and never ended: {open_jobs}"

    async def _received(self) -> bool:
        self._system.messages += await self._system.at.receive()
        return bool(self._system.messages)

    async def _jobs(self) -> Mapping[JobId, Job]:
        found = {job_id: await self._system.at.jobs.get(job_id) for job_id in self._system.ids}
        return {job_id: job for job_id, job in found.items() if job is not None}

    async def _judge(self, job: Job) -> None:
        """Its end must have a reason, and its answer be its own."""
        system = self._system
        match job.state:
            case JobState.COMPLETED:
                if job.id in system.accepted:
                    view = await system.read(job.id)
                    assert view is not None
                    assert view.result is not None
                    assert view.result["text"] == system.prompts[job.id], "another's answer"
            case JobState.CANCELLED:
                assert job.id in system.cancelled, f"nobody cancelled {job}"
            case JobState.EXPIRED:
                has_passed = job.finished_at is not None and job.finished_at >= job.deadline_at
                was_told = "deadline_exceeded" in system.engine.told[job.id]
                assert has_passed or was_told, f"ended before its time: {job}"
            case JobState.FAILED:
                self._judge_failure(job)
            case _:
                raise AssertionError(f"not ended: {job}")

    def _judge_failure(self, job: Job) -> None:
        assert job.failure is not None
        code = job.failure.code
        if code == "not_queued":
            assert self._system.trouble.happened, f"nothing had gone wrong: {job}"
            assert job.id not in self._system.accepted, f"accepted, and not queued: {job}"
        elif code in ("worker_lost", "internal_error"):
            losses = job.losses + 1
            assert losses >= SweepPolicy().max_losses, f"given up after {losses} losses: {job}"
        else:
            assert code in self._system.engine.told[job.id], f"for no reason: {job}"

    def _one_job_a_key(self, jobs: Mapping[JobId, Job]) -> None:
        texts = [self._system.prompts[job_id] for job_id in jobs]
        keyed = Counter(text for text in texts if text.startswith("prompt of"))
        assert not keyed or max(keyed.values()) == 1, f"one key, several records: {keyed}"

    def _telemetry_adds_up(self, jobs: Mapping[JobId, Job]) -> None:
        """Each end is told once; only one that was written and not confirmed may go untold.

        So may one whose runner died as it was to tell.
        """
        told = {job.id: job.state for (job,) in self._system.telemetry.of("ended")}
        for job_id, state in told.items():
            assert jobs[job_id].state is state, f"told {state} of {jobs[job_id]}"
        untold = jobs.keys() - told.keys()
        may_be = self._system.trouble.unconfirmed + self._system.engine.cut_off
        assert len(untold) <= may_be, f"ended, and nobody was told: {sorted(untold)}"

    async def _usage_adds_up(self, jobs: Mapping[JobId, Job]) -> None:
        used, expected = await self._used(), _used_by(jobs)
        assert used == expected, f"counted {used}, used {expected}"

    async def _used(self) -> Mapping[UsageKey, Used]:
        usage = self._system.at.usage
        return {
            key: used
            for tenant in ("default", METER.tenant)
            for key, used in (await usage.used(tenant, "2000-01-01", "2100-01-01")).items()
        }

    async def _meter_adds_up(self) -> None:
        """Nothing is under way: at once where all went well, else when its time is up."""
        system = self._system
        if not system.trouble.happened and not system.engine.deaths:
            assert system.at.under_way(METER) == (0, 0), "ended, and counted as under way"
        now = max(system.clock(), system.asked_until) + 3600.0
        system.clock.now = now
        probe = Reservation(ReservationId(METER.tenant, "probe", int(now) + 60), (METER,), now, 1)
        verdict = await system.at.meter.reserve(probe, {METER: Limits(concurrent_jobs=1)})
        assert verdict.refusal is None, "what has long ended is counted as under way"
        await system.at.meter.settle(probe.id, None)
        assert system.at.under_way(METER) == (0, 0)


def _used_by(jobs: Mapping[JobId, Job]) -> Mapping[UsageKey, Used]:
    return summed(used_by(job) for job in jobs.values() if job.state.is_final)
