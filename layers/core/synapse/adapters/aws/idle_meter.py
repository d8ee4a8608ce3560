"""The idle time of the pools, in the registry table: `idle` / `<pool>`, shared by all functions."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import call, error_code
from synapse.adapters.aws.items import CONDITION_FAILED, Update, attributes, read_item
from synapse.domain.errors import Unavailable
from synapse.domain.receipt import IdleTime

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

logger = logging.getLogger(__name__)

TRIES = 3


class DynamoIdleMeter:
    """See the port `IdleMeter`. Pools are metered from the first request on.

    Who is beaten to it time and again by others leaves the idle time to them.
    """

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    async def charge(
        self, pool: str, now: float, up_since: Sequence[float], busy_s: float
    ) -> float:
        """See the port."""
        try:
            for _ in range(TRIES):
                taken_s = await self._charge(pool, now, up_since, busy_s)
                if taken_s is not None:
                    return taken_s
        except (Unavailable, ClientError):
            logger.exception("idle time not charged", extra={"pool": pool})
        return 0.0

    async def _charge(
        self, pool: str, now: float, up_since: Sequence[float], busy_s: float
    ) -> float | None:
        """What the request takes; None if somebody else wrote meanwhile."""
        key: dict[str, object] = {"pk": "idle", "sk": pool}
        item = await read_item(self._client, self._table, key)
        before = IdleTime(float(item["at"]), float(item["idle_s"])) if item else IdleTime(now)
        after, taken_s = before.charged(now, up_since, busy_s)
        update = Update().only_if_equal({"revision": item["revision"] if item else None})
        revision = int(item["revision"]) + 1 if item else 1
        update.put({"at": after.at, "idle_s": after.idle_s, "revision": revision})
        try:
            await call(
                self._client.update_item,
                TableName=self._table,
                Key=attributes(key),
                **update.arguments(),
            )
        except ClientError as error:
            if error_code(error) != CONDITION_FAILED:
                raise
            return None
        return taken_s
