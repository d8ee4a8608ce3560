"""Catalogue and pools as configured; rates and health in DynamoDB.

- `rate#<model>` / `<minute>`: items finished and milliseconds they took, added up atomically, of
  all pools and of each.
- `health` / `<model>#<pool>`: what the pinger saw last.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from synapse.adapters.aws.calls import call
from synapse.adapters.aws.items import attribute, attributes, plain
from synapse.domain.errors import Unavailable
from synapse.domain.estimate import ServiceRate
from synapse.domain.model import ModelSpec, ServiceSample, WorkerHealth
from synapse.domain.pool import Pool
from synapse.ports import Clock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

logger = logging.getLogger(__name__)

RATE_MINUTES = 5
"""How many of the latest minutes with work in them make the rate."""

READ_MINUTES = 30
"""How many are read, among which each pool's own latest ones are looked for."""

RATE_VALID_S = 5.0
RATE_RETENTION_S = 86_400.0
HEALTH_RETENTION_S = 7 * 86_400.0


class DynamoRegistry:
    """The Registry of the AWS target."""

    def __init__(
        self,
        client: DynamoDBClient,
        table: str,
        models: Sequence[ModelSpec],
        pools: Sequence[Pool],
        *,
        clock: Clock = time.time,
    ) -> None:
        self._client = client
        self._table = table
        self._models = {model.name: model for model in sorted(models, key=lambda m: m.name)}
        self._pools = tuple(pools)
        self._clock = clock
        self._minutes: dict[str, tuple[float, list[dict[str, Any]]]] = {}

    async def models(self) -> Sequence[ModelSpec]:
        """See the port."""
        return tuple(self._models.values())

    async def model(self, name: str) -> ModelSpec | None:
        """See the port."""
        return self._models.get(name)

    async def pools(self, model: str) -> Sequence[Pool]:
        """See the port."""
        return [pool for pool in self._pools if model in self._models and pool.serves(model)]

    async def record_service(self, sample: ServiceSample, now: float) -> None:
        """See the port."""
        await call(
            self._client.update_item,
            TableName=self._table,
            Key=attributes({"pk": _rate_pk(sample.model), "sk": f"{int(now // 60):010d}"}),
            UpdateExpression=(
                "SET #ttl = :ttl "
                "ADD #items :items, #busy :busy, #pool_items :items, #pool_busy :busy"
            ),
            ExpressionAttributeNames={
                "#ttl": "ttl",
                "#items": _items(),
                "#busy": _busy_ms(),
                "#pool_items": _items(sample.pool),
                "#pool_busy": _busy_ms(sample.pool),
            },
            ExpressionAttributeValues=attributes(
                {
                    ":ttl": math.ceil(now + RATE_RETENTION_S),
                    ":items": sample.items,
                    # Whole microseconds: DynamoDB adds decimals, not our binary fractions.
                    ":busy": round(sample.busy_s * 1000, 3),
                }
            ),
        )
        known = self._minutes.get(sample.model)
        if known is not None:
            self._minutes[sample.model] = (float("-inf"), known[1])

    async def service_rate(self, model: str, now: float, pool: str = "") -> ServiceRate:
        """See the port. Read once in five seconds, less often if DynamoDB does not answer."""
        minutes = await self._latest_minutes(model, now)
        items, busy_ms = _items(pool), _busy_ms(pool)
        measured = [minute for minute in minutes if items in minute]
        worked = [minute for minute in measured if int(minute["sk"])][:RATE_MINUTES]
        counted = worked or measured
        busy_s = sum(minute[busy_ms] for minute in counted) / 1000
        is_guess = bool(counted) and not worked
        return ServiceRate(sum(minute[items] for minute in counted), busy_s, is_guess)

    async def finished_lately(self, model: str, now: float) -> tuple[float, float | None]:
        """Items a second in this minute and the last, and about when the last one was finished.

        None if that is long ago; what a ping measured lies in minute 0, and is no work.

        Raises:
            Unavailable: it could not be read, now or ever before.
        """
        minutes = {int(item["sk"]): item for item in await self._latest_minutes(model, now)}
        latest = max(minutes, default=0)
        if latest == 0:
            return 0.0, None
        this = int(now // 60)
        items = sum(minutes[at]["items"] for at in (this - 1, this) if at in minutes)
        return items / (60 + now % 60), min(now, 60.0 * (latest + 1))

    async def _latest_minutes(self, model: str, now: float) -> list[dict[str, Any]]:
        """Those with any work in them, the latest first."""
        known = self._minutes.get(model)
        if known is not None and 0 <= now - known[0] < RATE_VALID_S:
            return known[1]
        try:
            minutes = await self._read_minutes(model)
        except Unavailable:
            if known is None:
                raise
            logger.warning("service rate not read", extra={"model": model}, exc_info=True)
            minutes = known[1]
        self._minutes[model] = (now, minutes)
        return minutes

    async def _read_minutes(self, model: str) -> list[dict[str, Any]]:
        page = await call(
            self._client.query,
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": attribute(_rate_pk(model))},
            ScanIndexForward=False,
            Limit=READ_MINUTES,
        )
        # DynamoDB drops what is past its time late; until then it is as good as nothing better.
        return [plain(item) for item in page["Items"]]

    async def record_health(self, health: WorkerHealth) -> None:
        """See the port."""
        text = json.dumps(asdict(health), ensure_ascii=False)
        item = {
            "pk": "health",
            "sk": f"{health.model}#{health.pool}",
            "seen": text,
            "ttl": math.ceil(health.checked_at + HEALTH_RETENTION_S),
        }
        await call(self._client.put_item, TableName=self._table, Item=attributes(item))

    async def health(self) -> Sequence[WorkerHealth]:
        """See the port."""
        page = await call(
            self._client.query,
            TableName=self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues={":pk": attribute("health")},
            ConsistentRead=True,
        )
        items = [plain(item) for item in page["Items"]]
        known = [
            WorkerHealth(**json.loads(item["seen"]))
            for item in items
            if item["ttl"] > self._clock()
        ]
        return [seen for seen in known if self._is_served(seen.model, seen.pool)]

    def _is_served(self, model: str, pool: str) -> bool:
        """Whether it is still: an earlier deployment may have had others."""
        return model in self._models and any(
            each.name == pool and each.serves(model) for each in self._pools
        )


def _items(pool: str = "") -> str:
    return f"items#{pool}" if pool else "items"


def _busy_ms(pool: str = "") -> str:
    return f"busy_ms#{pool}" if pool else "busy_ms"


def _rate_pk(model: str) -> str:
    return f"rate#{model}"
