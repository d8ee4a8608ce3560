"""What is asked of the models, as far as AWS can tell, and how the autoscaler is woken.

- What waits: at zero workers jobs are not in SQS, they go round between queue and batcher. So the
  open jobs are counted in the index the sweeper uses (`open_jobs`).
- What arrives: as much as was finished lately (`rate#<model>`); what was not, waits.
- `start` / `<pool>`: how long the last starts took.
"""

from __future__ import annotations

import json
import logging
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import call
from synapse.adapters.aws.items import attributes, read_item
from synapse.adapters.aws.open_jobs import Kind, OpenJobs
from synapse.adapters.aws.registry import DynamoRegistry
from synapse.domain.errors import Unavailable
from synapse.domain.extension import NO_EXTENSIONS, Extensions
from synapse.domain.job import SlaTier
from synapse.domain.load import ModelDemand, TierDemand
from synapse.domain.routing import Need
from synapse.ports import Clock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_lambda.client import LambdaClient

logger = logging.getLogger(__name__)

WOKEN_S = 60.0
"""So long a wake counts as one item that waits: the index may show the job a moment later."""

WAKE_EVERY_S = 2.0
START_VALID_S = 60.0
LATEST_SHARE = 0.5
"""How much the latest start counts in what is expected of the next one."""


class DynamoDemand:
    """The DemandSource of the AWS target."""

    def __init__(self, open_jobs: OpenJobs, registry: DynamoRegistry) -> None:
        self._open_jobs = open_jobs
        self._registry = registry
        self._woken: dict[Kind, float] = {}

    def woken(
        self, model: str, tier: SlaTier, now: float, requires: Extensions = NO_EXTENSIONS
    ) -> None:
        """Count an item that may not be seen yet."""
        self._woken[Kind(model, tier, requires)] = now

    async def demand(self, now: float) -> Sequence[ModelDemand]:
        """See the port."""
        waiting = await self._open_jobs.waiting(now)
        for kind, woken_at in self._woken.items():
            if 0 <= now - woken_at < WOKEN_S:
                waiting[kind] = max(waiting[kind], 1)
        tiers: defaultdict[str, dict[SlaTier, TierDemand]] = defaultdict(dict)
        picky: defaultdict[tuple[str, Extensions], dict[SlaTier, TierDemand]] = defaultdict(dict)
        for (model, tier, requires), queued in waiting.items():
            of = picky[model, requires] if requires else tiers[model]
            of[tier] = TierDemand(queued, last_at=now)
        for spec in await self._registry.models():
            rate, last_at = await self._registry.finished_lately(spec.name, now)
            if last_at is None:
                continue
            # Whose they were is not known: of the best tier that waits, or of the middle one.
            tier = min(tiers[spec.name], key=list(SlaTier).index, default=SlaTier.SILVER)
            queued = tiers[spec.name].get(tier, TierDemand()).queued
            tiers[spec.name][tier] = TierDemand(queued, rate, now if queued else last_at)
        return [
            *(ModelDemand(model, of) for model, of in sorted(tiers.items()) if of),
            *(ModelDemand(model, of, requires=needed) for (model, needed), of in picky.items()),
        ]


class NoArrivals:
    """The Arrivals of the AWS target: what comes is seen when it waits, or is finished."""

    def arrived(self, model: str, need: Need) -> None:
        """See the port."""


class LambdaWaker:
    """The Waker of the AWS target: invokes the scale function, and does not wait for it."""

    def __init__(
        self, functions: LambdaClient, scaler: str, *, clock: Clock = time.monotonic
    ) -> None:
        self._functions = functions
        self._scaler = scaler
        self._clock = clock
        self._woken_at: dict[Kind, float] = {}

    async def wake(self, model: str, need: Need) -> None:
        """See the port. Once in two seconds for each model and tier is enough."""
        kind, now = Kind(model, need.tier, need.requires), self._clock()
        if not self._scaler or now - self._woken_at.get(kind, float("-inf")) < WAKE_EVERY_S:
            return
        self._woken_at[kind] = now
        await self._invoke({"model": model, "tier": need.tier, "requires": sorted(need.requires)})

    async def wake_pool(self, pool: str) -> None:
        """Have a worker of this very pool up for some minutes. Raises nothing."""
        if self._scaler:
            await self._invoke({"pool": pool})

    async def _invoke(self, event: Mapping[str, Any]) -> None:
        try:
            await call(
                self._functions.invoke,
                FunctionName=self._scaler,
                InvocationType="Event",
                Payload=json.dumps(event).encode(),
            )
        except (Unavailable, ClientError) as error:
            logger.warning("scaler not woken, it looks each minute anyway: %s", error)


class DynamoStartTimes:
    """The StartTimes of the AWS target."""

    def __init__(self, client: DynamoDBClient, table: str, *, clock: Clock = time.time) -> None:
        self._client = client
        self._table = table
        self._clock = clock
        self._known: dict[str, tuple[float, float | None]] = {}

    async def startup_s(self, pool: str) -> float | None:
        """See the port. Read once a minute."""
        known, now = self._known.get(pool), self._clock()
        if known is not None and 0 <= now - known[0] < START_VALID_S:
            return known[1]
        try:
            item = await read_item(self._client, self._table, _start_key(pool))
            seconds = float(item["seconds"]) if item else None
        except Unavailable:
            seconds = known[1] if known else None
        self._known[pool] = (now, seconds)
        return seconds

    async def started(self, pool: str, seconds: float) -> None:
        """See the port."""
        self._known.pop(pool, None)
        before = await self.startup_s(pool)
        mean = seconds if before is None else before + LATEST_SHARE * (seconds - before)
        item = {**_start_key(pool), "seconds": mean}
        try:
            await call(self._client.put_item, TableName=self._table, Item=attributes(item))
        except Unavailable as error:
            logger.warning("start of pool %s not recorded: %s", pool, error.message)
        self._known[pool] = (self._clock(), mean)


def _start_key(pool: str) -> dict[str, str]:
    return {"pk": "start", "sk": pool}
