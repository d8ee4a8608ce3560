"""What each request cost, and whose usage it counts as."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from synapse.application.roster import Roster
from synapse.domain.access import Principal
from synapse.domain.errors import Unavailable
from synapse.domain.job import Job, Usage
from synapse.domain.pool import Pool
from synapse.domain.receipt import NO_COST, Cost, Receipt, usd, work_s
from synapse.domain.usage import UsageKey, day_of, one_request
from synapse.ports import Clock, IdleMeter, UsageStore

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Accounting:
    """Shares out the price of workers, and counts what requests on the line used.

    What jobs used is counted by their store, together with their ends.
    """

    roster: Roster
    idle: IdleMeter
    usage: UsageStore
    clock: Clock

    async def cost(self, pool: Pool, seconds: float, items: int, slots: int) -> Cost:
        """What `items` cost that held as many of a worker's slots for so long. Raises nothing."""
        if pool.price_per_hour_usd == 0:
            return NO_COST
        busy_s = work_s(seconds, items, slots)
        warm_s = 0.0
        if not pool.paid_by_call:  # which costs nothing between the calls
            warm_s = await self.idle.charge(pool.name, self.clock(), await self._up(pool), busy_s)
        return Cost(usd(pool, busy_s), usd(pool, warm_s))

    async def count(
        self, caller: Principal, model: str, receipt: Receipt, *, failed: bool = False
    ) -> None:
        """Count a request on the line that has ended. Raises nothing."""
        key = UsageKey(caller.tenant, caller.account, model, day_of(self.clock()))
        await self.usage.add(key, one_request(receipt.usage, receipt.cost, failed=failed))

    async def charge(self, job: Job, cost: Cost, usage: Usage | None = None) -> None:
        """Count what a job used that was cancelled meanwhile: it is counted itself already.

        Raises nothing.
        """
        key = UsageKey(job.tenant, job.account, job.model, day_of(self.clock()))
        await self.usage.add(key, replace(one_request(usage, cost), requests=0))

    async def _up(self, pool: Pool) -> Sequence[float]:
        """Since when each worker of the pool is paid for; those of elsewhere, silent, always."""
        if pool.is_fixed and not pool.beats:
            return [0.0] * pool.fixed_workers
        try:
            workers = await self.roster.of_pool(pool.name)
            return [worker.started_at for worker in workers if not worker.has_ended]
        except Unavailable as error:
            logger.warning("idle time not known: %s", error.message)
            return ()
