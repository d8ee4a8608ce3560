"""The batcher on AWS: each batch tries its pools in order, with pauses; what is left is given back.

As `statemachines/batcher.asl.json` has it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from bench.simulator import round_bill
from bench.simulator.facts import LAMBDA_INVOKE
from bench.simulator.jobs import JobLane
from bench.simulator.requests import End
from bench.simulator.runner import Runner, payload_of
from synapse.domain.batching import JobMessage
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.retry import RetryPolicy

RETRY = RetryPolicy(max_attempts=4, base_s=1.0, max_s=8.0)
"""Of each pool, as in `statemachines/batcher.asl.json`."""


@dataclass(slots=True)
class _Batch:
    """A batch under way, and the jobs that have not run."""

    spec: ModelSpec
    pools: Sequence[Pool]
    left: list[JobMessage]
    has_run: bool = False


@dataclass(slots=True)
class Executions:
    """Runs batches of a lane, and has it send the jobs again that are given back."""

    lane: JobLane
    give_back: Callable[[Sequence[JobMessage]], None]
    retry: RetryPolicy = RETRY

    def start(self, spec: ModelSpec, pools: Sequence[Pool], jobs: Sequence[JobMessage]) -> None:
        """A batch begins its way."""
        self.lane.events.begin(self._execute(_Batch(spec, pools, list(jobs))))

    async def _execute(self, batch: _Batch) -> None:
        lane = self.lane
        await lane.events.sleep(lane.around.batch.draw(lane.chance))
        for pool in batch.pools:
            for failures in range(1, self.retry.max_attempts + 1):
                await self._try(batch, pool)
                if not batch.left:
                    return
                pause_s = self._pause_s(failures)
                await lane.events.sleep(pause_s + LAMBDA_INVOKE.draw(lane.chance))
        await lane.events.sleep(lane.around.write.draw(lane.chance))
        self._give_back(batch)

    async def _try(self, batch: _Batch, pool: Pool) -> None:
        meter = self.lane.system.meter
        meter.count("tries", len(batch.left))
        runner = Runner(self.lane, batch.spec, pool, batch.left)
        await runner.run()
        if runner.begun:
            meter.add(round_bill.executions(-batch.has_run))
            batch.has_run = True

    def _pause_s(self, failures: int) -> float:
        """After so many failures in a pool; none before the next pool."""
        if failures == self.retry.max_attempts:
            return 0.0
        pause_s = self.retry.delay_s(failures, self.lane.chance.random())
        self.lane.system.meter.add(round_bill.paused(pause_s))
        return pause_s

    def _give_back(self, batch: _Batch) -> None:
        """Back into the queue; those whose time is up are ended, which the sweeper does."""
        lane, now = self.lane, self.lane.events.now
        for job in [job for job in batch.left if job.deadline_at <= now]:
            batch.left.remove(job)
            lane.queue.discard(job.job_id)
            lane.closed(lane.request_of(job.job_id), End.EXPIRED)
        lane.system.meter.count("given back", len(batch.left))
        payloads = [payload_of(batch.spec)] * len(batch.left)
        bill = round_bill.given_back(payloads) + round_bill.executions(not batch.has_run)
        lane.system.meter.add(bill)
        if batch.left:
            self.give_back([replace(job, sent_at=now) for job in batch.left])
