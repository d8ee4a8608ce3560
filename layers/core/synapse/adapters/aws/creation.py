"""Writing new job items, alone or together with the record of an idempotency key."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import call, error_code
from synapse.adapters.aws.items import (
    CONDITION_FAILED,
    REFUSED,
    attributes,
    read_item,
    transact,
)
from synapse.adapters.records import Record
from synapse.domain.errors import Unavailable
from synapse.domain.job import JobId
from synapse.domain.retry import RetryPolicy
from synapse.ports import Clock, Idempotency

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

logger = logging.getLogger(__name__)

CONFLICTS = RetryPolicy(max_attempts=6, base_s=0.02, max_s=0.5)
"""Two requests with the same key at the same moment: DynamoDB refuses one without a decision."""


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """The request that has a key already."""

    job_id: JobId
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Creation:
    """Puts new items; an id that is taken is a ValueError, and nothing is overwritten."""

    client: DynamoDBClient
    table: str
    clock: Clock

    async def put(self, item: Record) -> None:
        """Write a job."""
        try:
            await call(
                self.client.put_item,
                TableName=self.table,
                Item=attributes(item),
                ConditionExpression="attribute_not_exists(pk)",
            )
        except ClientError as error:
            if error_code(error) != CONDITION_FAILED:
                raise
            if not await self._stands(item):
                raise _taken(item) from error

    async def was_written(self, item: Record) -> bool:
        """Whether a job was written though no answer came; not if that cannot be told either."""
        try:
            return await self._stands(item)
        except (Unavailable, ClientError):
            logger.exception("not known whether a job is on record", extra={"job": item["id"]})
            return False

    async def _stands(self, item: Record) -> bool:
        found = await self._read(item["pk"])
        return found is not None and found["write_id"] == item["write_id"]

    async def put_with_key(
        self, item: Record, idempotency: Idempotency, gone: JobId | None = None
    ) -> KeyHolder | None:
        """Write a job and its key, both or none; who has the key instead, if somebody has.

        A holder past its retention, or known to be `gone`, has lost the key.
        """
        key = _key_pk(item["tenant"], idempotency.key)
        for failures in range(1, CONFLICTS.max_attempts + 1):
            reasons = await self._transact(item, key, idempotency.fingerprint, gone)
            if not reasons:
                return None
            if reasons[0] == REFUSED:
                raise _taken(item)
            holder = await self._holder(key) if reasons[1] == REFUSED else None
            if holder is not None:
                return holder
            if failures < CONFLICTS.max_attempts:
                await asyncio.sleep(CONFLICTS.delay_s(failures, random.random()))
        raise Unavailable("the idempotency key is in use by many requests at once")

    async def _transact(
        self, item: Record, key: str, fingerprint: str, gone: JobId | None
    ) -> Sequence[str]:
        holder = {
            "pk": key,
            "job_id": item["id"],
            "fingerprint": fingerprint,
            "ttl": item["ttl"],
        }
        values = {":now": self.clock(), ":gone": gone or ""}
        return await transact(
            self.client,
            [
                {
                    "Put": {
                        "TableName": self.table,
                        "Item": attributes(item),
                        "ConditionExpression": "attribute_not_exists(pk)",
                    }
                },
                {
                    "Put": {
                        "TableName": self.table,
                        "Item": attributes(holder),
                        "ConditionExpression": (
                            "attribute_not_exists(pk) OR #ttl <= :now OR job_id = :gone"
                        ),
                        "ExpressionAttributeNames": {"#ttl": "ttl"},
                        "ExpressionAttributeValues": attributes(values),
                    }
                },
            ],
        )

    async def holder(self, tenant: str, key: str) -> KeyHolder | None:
        """The request that has the key, if one has."""
        return await self._holder(_key_pk(tenant, key))

    async def _holder(self, key: str) -> KeyHolder | None:
        record = await self._read(key)
        return KeyHolder(JobId(record["job_id"]), record["fingerprint"]) if record else None

    async def _read(self, key: str) -> dict[str, Any] | None:
        return await read_item(self.client, self.table, {"pk": key})


def _key_pk(tenant: str, key: str) -> str:
    # Hashed: a caller's key may be longer than DynamoDB's, and may hold any separator.
    return f"idem#{sha256(json.dumps([tenant, key]).encode()).hexdigest()}"


def _taken(item: Record) -> ValueError:
    return ValueError(f"there is a job {item['id']!r} already")
