"""The batcher on one machine: retry, fall back, give back.

The same rules as `statemachines/batcher.asl.json`, and held to them by the same scenarios.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from synapse.application.give_back import GiveBack
from synapse.application.run_batch import BatchRunner
from synapse.domain.batching import Batch
from synapse.domain.errors import (
    EngineFull,
    EngineLost,
    EngineUnavailable,
    SynapseError,
    Unavailable,
)
from synapse.domain.job import Failure
from synapse.domain.pool import Pool
from synapse.domain.retry import RetryPolicy
from synapse.ports import BatchOrder

logger = logging.getLogger(__name__)


def _ignore(batch: Batch, pool: Pool) -> None:
    """Nobody counts the free slots."""


@dataclass(frozen=True, slots=True)
class Batcher:
    """Runs an order to its end: every job of it is settled or back in its queue.

    `moved` is told of each pool in which a batch is tried, before it is.
    """

    runner: BatchRunner
    give_back: GiveBack
    retry: RetryPolicy
    sleep: Callable[[float], Awaitable[None]]
    uniform: Callable[[], float]
    moved: Callable[[Batch, Pool], None] = _ignore

    async def run(self, order: BatchOrder) -> None:
        """Try the pools in order, each up to the retry policy's limit. Raises nothing."""
        error: SynapseError | None = None
        try:
            for pool in order.pools:
                self.moved(order.batch, pool)
                for failures in range(1, self.retry.max_attempts + 1):
                    try:
                        await self.runner.run(order.batch, pool)
                    except EngineFull:
                        raise
                    except EngineUnavailable as unavailable:
                        error = unavailable
                    else:
                        return
                    if failures < self.retry.max_attempts:
                        await self.sleep(self.retry.delay_s(failures, self.uniform()))
        except (EngineLost, EngineFull) as given_back:
            error = given_back
        except Exception:
            logger.exception("batch failed unexpectedly", extra={"batch": order.batch.id})
            error = None  # whatever an earlier try came to
        cause = error or SynapseError("the batch broke off for a reason of ours; see the log")
        lost_work = not isinstance(cause, EngineUnavailable)
        failure = Failure(cause.code, cause.message)
        try:
            await self.give_back(order.batch.id, order.batch.job_ids, failure, lost=lost_work)
        except Unavailable as unavailable:
            # The sweeper finds what was not given back, or not queued.
            logger.warning("batch not given back: %s", unavailable.message)
