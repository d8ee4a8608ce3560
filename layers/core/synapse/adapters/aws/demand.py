"""What is asked of the models, as far as AWS can tell, and how the autoscaler is woken.

- What waits: at zero workers jobs are not in SQS, they go round between queue and batcher. So the
  open jobs are counted in the index the sweeper uses, and samples of them tell of which models
  and tiers they are, and how many of them run.
- What arrives: as much as was finished lately (`rate#<model>`); what was not, waits.
- `start` / `<pool>`: how long the last starts took.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import call
from synapse.adapters.aws.items import attributes, plain, read_item
from synapse.adapters.aws.job_items import OPEN_INDEX, OPEN_SHARDS, job_id_of
from synapse.adapters.aws.registry import DynamoRegistry
from synapse.domain.errors import Unavailable
from synapse.domain.extension import NO_EXTENSIONS, Extensions
from synapse.domain.job import Job, JobId, JobState, SlaTier
from synapse.domain.load import ModelDemand, TierDemand
from synapse.domain.routing import Need
from synapse.ports import Clock, JobStore

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_lambda.client import LambdaClient

logger = logging.getLogger(__name__)

SAMPLE_PER_SHARD = 4
LONGEST_LEASE_S = 130.0
"""A batch is ours for as long as a runner may run (120 s): who is due later than that waits."""

HORIZON_S = 7 * 86_400.0
"""Every open job is due some time: within its lease, or to be sent again."""

WOKEN_S = 60.0
"""So long a wake counts as one item that waits: the index may show the job a moment later."""

WAKE_EVERY_S = 2.0
START_VALID_S = 60.0
LATEST_SHARE = 0.5
"""How much the latest start counts in what is expected of the next one."""

Kind = tuple[str, SlaTier, Extensions]


class DynamoDemand:
    """The DemandSource of the AWS target."""

    def __init__(
        self, client: DynamoDBClient, table: str, jobs: JobStore, registry: DynamoRegistry
    ) -> None:
        self._client = client
        self._table = table
        self._jobs = jobs
        self._registry = registry
        self._woken: dict[Kind, float] = {}

    def woken(
        self, model: str, tier: SlaTier, now: float, requires: Extensions = NO_EXTENSIONS
    ) -> None:
        """Count an item that may not be seen yet."""
        self._woken[model, tier, requires] = now

    async def demand(self, now: float) -> Sequence[ModelDemand]:
        """See the port."""
        waiting = await self._waiting(now)
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

    async def _waiting(self, now: float) -> Counter[Kind]:
        """Jobs that wait, by model, tier and what they require of engines.

        A backlog is due later the longer it lasts: a sample of what is due first would show
        nothing but jobs that run.
        """
        lease_end = now + LONGEST_LEASE_S
        soon, late = await asyncio.gather(
            self._waiting_in(0.0, lease_end), self._waiting_in(lease_end, now + HORIZON_S)
        )
        return soon + late

    async def _waiting_in(self, after: float, until: float) -> Counter[Kind]:
        """Of those that are due between: the number of all exact, the rest by a sample."""
        opened = sum(
            await asyncio.gather(*(self._open(shard, after, until) for shard in OPEN_SHARDS))
        )
        if not opened:
            return Counter()
        named = await asyncio.gather(*(self._first(shard, after, until) for shard in OPEN_SHARDS))
        jobs = await asyncio.gather(*(self._jobs.get(each) for shard in named for each in shard))
        sample = [job for job in jobs if job is not None and not job.state.is_final]
        queued = Counter(_kind(j) for j in sample if j.state is JobState.QUEUED)
        share = opened / max(1, len(sample))
        return Counter({kind: max(1, round(number * share)) for kind, number in queued.items()})

    async def _open(self, shard: str, after: float, until: float) -> int:
        counted: int = 0
        start: dict[str, Any] = {}
        while True:
            page = await self._query(shard, after, until, Select="COUNT", **start)
            counted += int(page["Count"])
            if "LastEvaluatedKey" not in page:
                return counted
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    async def _first(self, shard: str, after: float, until: float) -> list[JobId]:
        page = await self._query(
            shard, after, until, ProjectionExpression="pk", Limit=SAMPLE_PER_SHARD
        )
        return [job_id_of(plain(item)["pk"]) for item in page["Items"]]

    async def _query(self, shard: str, after: float, until: float, **asked: Any) -> Any:
        return await call(
            self._client.query,
            TableName=self._table,
            IndexName=OPEN_INDEX,
            KeyConditionExpression="open_shard = :shard AND due_at BETWEEN :after AND :until",
            ExpressionAttributeValues=attributes(
                {":shard": shard, ":after": after, ":until": until}
            ),
            **asked,
        )


def _kind(job: Job) -> Kind:
    return job.model, job.sla, job.requires


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
        kind, now = (model, need.tier, need.requires), self._clock()
        if not self._scaler or now - self._woken_at.get(kind, float("-inf")) < WAKE_EVERY_S:
            return
        self._woken_at[kind] = now
        woken = {"model": model, "tier": need.tier, "requires": sorted(need.requires)}
        payload = json.dumps(woken).encode()
        try:
            await call(
                self._functions.invoke,
                FunctionName=self._scaler,
                InvocationType="Event",
                Payload=payload,
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
