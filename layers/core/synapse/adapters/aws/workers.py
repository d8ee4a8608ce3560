"""Heartbeats in the registry table: `worker` / `<id>`, an item a worker; each beat overwrites it.

Readers filter by the lease; the table's own expiry only sweeps up what nobody has looked for.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import call, error_code
from synapse.adapters.aws.items import (
    CONDITION_FAILED,
    attributes,
    plain,
    put_latest,
    query_items,
)
from synapse.domain.errors import Unavailable
from synapse.domain.worker import CacheLevel, Worker, WorkerModel, WorkerState

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

logger = logging.getLogger(__name__)

WORKERS_VALID_S = 2.0
"""How old an answer to `workers` may be: a lease lasts several times as long."""

RETENTION_S = 86_400.0
PARTITION = "worker"


class DynamoWorkerRegistry:
    """The WorkerRegistry of the AWS target."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table
        self._seen: tuple[float, Sequence[Worker]] | None = None

    async def beat(self, worker: Worker) -> None:
        """See the port."""
        self._seen = None
        item = {
            **_key(worker.id),
            "beat_at": worker.beat_at,
            "lease_until": worker.lease_until,
            "seen": json.dumps(asdict(worker), ensure_ascii=False, separators=(",", ":")),
            "ttl": math.ceil(worker.lease_until + RETENTION_S),
        }
        await put_latest(self._client, self._table, item, "beat_at")

    async def workers(self, now: float) -> Sequence[Worker]:
        """See the port. Read once in two seconds, less often while DynamoDB does not answer."""
        if self._seen is None or not 0 <= now - self._seen[0] < WORKERS_VALID_S:
            try:
                self._seen = (now, await self._read("lease_until > :now", now))
            except Unavailable:
                if self._seen is None:
                    raise
                logger.warning("workers not read; the last that were known count", exc_info=True)
        return [worker for worker in self._seen[1] if worker.is_alive(now)]

    async def expire(self, now: float) -> Sequence[Worker]:
        """See the port. Whoever deletes the item is the one who is told."""
        self._seen = None
        told: list[Worker] = []
        for worker in await self._read("lease_until <= :now", now):
            try:
                if await self._delete_dead(worker):
                    told.append(worker)
            except Unavailable:
                # Those that are gone already must be told of; the others keep for the next round.
                logger.warning("not all dead workers were taken out", exc_info=True)
                break
        return told

    async def forget(self, worker_id: str) -> None:
        """See the port."""
        self._seen = None
        await call(self._client.delete_item, TableName=self._table, Key=attributes(_key(worker_id)))

    async def _read(self, condition: str, now: float) -> Sequence[Worker]:
        """The workers for whom the condition holds, by pool and id."""
        items = query_items(
            self._client,
            self._table,
            KeyConditionExpression="pk = :pk",
            FilterExpression=condition,
            ExpressionAttributeValues=attributes({":pk": PARTITION, ":now": now}),
        )
        workers = [_worker(json.loads(plain(item)["seen"])) async for item in items]
        return sorted(workers, key=lambda worker: (worker.pool, worker.id))

    async def _delete_dead(self, worker: Worker) -> bool:
        """Whether it was this call that deleted it; not if it has beaten meanwhile."""
        try:
            await call(
                self._client.delete_item,
                TableName=self._table,
                Key=attributes(_key(worker.id)),
                ConditionExpression="beat_at = :beat_at",
                ExpressionAttributeValues=attributes({":beat_at": worker.beat_at}),
            )
        except ClientError as error:
            if error_code(error) != CONDITION_FAILED:
                raise
            return False
        return True


def _key(worker_id: str) -> dict[str, str]:
    return {"pk": PARTITION, "sk": worker_id}


def _worker(seen: Mapping[str, Any]) -> Worker:
    models = tuple(
        WorkerModel(model["name"], model["version"], CacheLevel(model["level"]))
        for model in seen["models"]
    )
    return Worker(**{**seen, "state": WorkerState(seen["state"]), "models": models})
