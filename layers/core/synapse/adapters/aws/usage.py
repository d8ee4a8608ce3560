"""What was used, in the access table: sums that are added to, never read before.

`usage#<shard>#<tenant>` / `<day>#<digest of account and model>`. A tenant's sums are spread over
shards, because an item takes no more than some hundred transactions a second, and refuses what
comes while one is under way.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from synapse.adapters.aws.items import attributes, plain, query_items, transact
from synapse.domain.errors import Unavailable
from synapse.domain.retry import RetryPolicy
from synapse.domain.usage import UsageKey, Used, summed

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

logger = logging.getLogger(__name__)

SHARDS = 8
CONFLICTS = RetryPolicy(max_attempts=5, base_s=0.05, max_s=0.5)
PASSING = frozenset({"TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded"})
"""What keeps a transaction from being done only now: boto3 does not repeat a cancelled one."""


class DynamoUsageStore:
    """The UsageStore of the AWS target: what is added is written when `add` returns."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    async def add(self, key: UsageKey, used: Used) -> None:
        """See the port."""
        try:
            await transact_in_turn(self._client, lambda: [addition(self._table, key, used)])
        except (Unavailable, ClientError):
            logger.exception("usage not written", extra={"tenant": key.tenant, "day": key.day})

    async def used(self, tenant: str, first_day: str, last_day: str) -> Mapping[UsageKey, Used]:
        """See the port."""
        shards = await asyncio.gather(
            *(self._rows(shard, tenant, first_day, last_day) for shard in range(SHARDS))
        )
        return summed(row for rows in shards for row in rows)

    async def _rows(
        self, shard: int, tenant: str, first_day: str, last_day: str
    ) -> list[tuple[UsageKey, Used]]:
        items = query_items(
            self._client,
            self._table,
            KeyConditionExpression="pk = :pk AND sk BETWEEN :first AND :last",
            # "$" comes after "#".
            ExpressionAttributeValues=attributes(
                {":pk": _pk(shard, tenant), ":first": first_day, ":last": f"{last_day}$"}
            ),
        )
        return [_row(tenant, plain(item)) async for item in items]


def addition(table: str, key: UsageKey, used: Used) -> dict[str, Any]:
    """The part of a transaction that adds to what was used, on a shard chosen anew."""
    digest = sha256(json.dumps([key.account, key.model]).encode()).hexdigest()[:32]
    named = {"account": key.account, "model": key.model, "day": key.day}
    sums = {name: value for name, value in asdict(used).items() if value}
    set_all = ", ".join(f"#{name} = :{name}" for name in named)
    add_all = ", ".join(f"#{name} :{name}" for name in sums)
    return {
        "Update": {
            "TableName": table,
            "Key": attributes(
                {
                    "pk": _pk(random.randrange(SHARDS), key.tenant),
                    "sk": f"{key.day}#{digest}",
                }
            ),
            "UpdateExpression": f"SET {set_all}" + (f" ADD {add_all}" if sums else ""),
            "ExpressionAttributeNames": {f"#{name}": name for name in [*named, *sums]},
            "ExpressionAttributeValues": attributes(
                {f":{name}": value for name, value in (named | sums).items()}
            ),
        }
    }


async def transact_in_turn(
    client: DynamoDBClient, writes: Callable[[], Sequence[Any]]
) -> Sequence[str]:
    """Do all of `writes()` or none, anew while others stand in the way, or there is no capacity.

    Returns what came of each, if a condition was refused; nothing if all were done.

    Raises:
        Unavailable: DynamoDB cannot be reached, or that lasts for too long.
    """
    for failures in range(1, CONFLICTS.max_attempts + 1):
        reasons = await transact(client, writes())
        if PASSING.isdisjoint(reasons):
            return reasons
        await asyncio.sleep(CONFLICTS.delay_s(failures, random.random()))
    raise Unavailable("an item is being written by many at once")


def _pk(shard: int, tenant: str) -> str:
    return f"usage#{shard}#{tenant}"


def _row(tenant: str, item: Mapping[str, Any]) -> tuple[UsageKey, Used]:
    sums = {name: int(item.get(name, 0)) for name in Used.__dataclass_fields__}
    return UsageKey(tenant, item["account"], item["model"], item["day"]), Used(**sums)
