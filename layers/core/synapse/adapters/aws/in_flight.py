"""What is in flight, counted in DynamoDB.

One item a model and pool, one write to enter, one to leave.

The item holds a total, and for each minute in which entries expire the sum of theirs. A minute
that has passed is what crashed holders have left behind: whoever comes by takes it off the total.
So the item stays small, and the total is always the sum of its minutes.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import call, error_code
from synapse.adapters.aws.items import attributes, plain, read_item
from synapse.domain.errors import Unavailable
from synapse.ids import new_id
from synapse.ports import Clock, Entry

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

logger = logging.getLogger(__name__)

MINUTE_S = 60.0
MINUTE_PREFIX = "until_"
RETENTION_S = 86_400.0
"""The item of a model and pool that nobody has asked for so long is dropped."""


_Key = Mapping[str, str]


class DynamoInFlight:
    """The InFlight of the AWS target. An entry expires at the end of the minute asked for."""

    def __init__(self, client: DynamoDBClient, table: str, *, clock: Clock = time.time) -> None:
        self._client = client
        self._table = table
        self._clock = clock
        self._held: set[str] = set()

    async def enter(
        self, model: str, pool: str, items: int, limit: int, expires_at: float
    ) -> Entry | None:
        """See the port."""
        key = _key(model, pool)
        minute = math.ceil(expires_at / MINUTE_S)
        counted = await self._add(key, items, limit, minute)
        if counted is None:
            if not await self._drop_passed(key, await self._read(key)):
                return None
            counted = await self._add(key, items, limit, minute)
            if counted is None:
                return None
        else:
            await self._drop_passed(key, counted)
        ahead = self._live(counted) - items
        entry = Entry(new_id(), model, pool, items, ahead, expires_at=minute * MINUTE_S)
        self._held.add(entry.id)
        return entry

    async def leave(self, entry: Entry) -> None:
        """See the port."""
        if entry.id not in self._held:
            return
        self._held.discard(entry.id)
        minute = _attribute(round(entry.expires_at / MINUTE_S))
        try:
            await call(
                self._client.update_item,
                TableName=self._table,
                Key=attributes(_key(entry.model, entry.pool)),
                UpdateExpression="ADD #total :less, #minute :less",
                # Gone with its minute: then it is off the total already.
                ConditionExpression="#minute >= :items",
                ExpressionAttributeNames={"#total": "total", "#minute": minute},
                ExpressionAttributeValues=attributes(
                    {":less": -entry.items, ":items": entry.items}
                ),
            )
        except ClientError as error:
            if error_code(error) != "ConditionalCheckFailedException":
                logger.exception("entry not left; it counts until it expires")
        except Unavailable:
            logger.warning("entry not left; it counts until it expires", exc_info=True)

    async def count(self, model: str, pool: str) -> int:
        """See the port."""
        return self._live(await self._read(_key(model, pool)))

    async def _add(self, key: _Key, items: int, limit: int, minute: int) -> dict[str, Any] | None:
        """The item with `items` more in it; None if that would be beyond `limit`."""
        if items > limit:
            return None
        now = self._clock()
        try:
            answer = await call(
                self._client.update_item,
                TableName=self._table,
                Key=attributes(key),
                UpdateExpression="SET #ttl = :ttl ADD #total :items, #minute :items",
                ConditionExpression="attribute_not_exists(#total) OR #total <= :room",
                ExpressionAttributeNames={
                    "#total": "total",
                    "#minute": _attribute(minute),
                    "#ttl": "ttl",
                },
                ExpressionAttributeValues=attributes(
                    {
                        ":items": items,
                        ":room": limit - items,
                        ":ttl": math.ceil(now + RETENTION_S),
                    }
                ),
                ReturnValues="ALL_NEW",
            )
        except ClientError as error:
            if error_code(error) == "ConditionalCheckFailedException":
                return None
            raise
        return plain(answer["Attributes"])

    async def _read(self, key: _Key) -> dict[str, Any]:
        return await read_item(self._client, self._table, key) or {}

    async def _drop_passed(self, key: _Key, item: Mapping[str, Any]) -> bool:
        """Take the minutes that have passed off the total; whether there were any items in them.

        Exactly once: only while each of them still holds what was read.
        """
        passed = self._passed(item)
        if not passed:
            return False
        names = {f"#m{number}": minute for number, minute in enumerate(passed)}
        values = {f":m{number}": items for number, items in enumerate(passed.values())}
        same = [f"{name} = {value}" for name, value in zip(names, values, strict=True)]
        try:
            await call(
                self._client.update_item,
                TableName=self._table,
                Key=attributes(key),
                UpdateExpression=f"ADD #total :less REMOVE {', '.join(names)}",
                ConditionExpression=" AND ".join(same),
                ExpressionAttributeNames={"#total": "total", **names},
                ExpressionAttributeValues=attributes({":less": -sum(passed.values()), **values}),
            )
        except ClientError as error:
            if error_code(error) != "ConditionalCheckFailedException":
                raise
            # Somebody else has come by.
        except Unavailable:
            # Then whoever comes by next does it: this must not cost an entry that is in already.
            return False
        return any(passed.values())

    def _live(self, item: Mapping[str, Any]) -> int:
        return int(item.get("total", 0)) - sum(self._passed(item).values())

    def _passed(self, item: Mapping[str, Any]) -> dict[str, int]:
        now = self._clock()
        return {
            name: items
            for name, items in item.items()
            if name.startswith(MINUTE_PREFIX)
            and int(name.removeprefix(MINUTE_PREFIX)) * MINUTE_S <= now
        }


def _key(model: str, pool: str) -> _Key:
    return {"pk": f"in-flight#{model}#{pool}", "sk": "total"}


def _attribute(minute: int) -> str:
    """The attribute of the entries that expire at the end of that minute."""
    return f"{MINUTE_PREFIX}{minute}"
