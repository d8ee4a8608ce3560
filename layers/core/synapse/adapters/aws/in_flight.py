"""What is in flight, counted in DynamoDB.

One item a model and pool, one write to enter, one to leave.

The item holds a total, and for each minute in which entries expire the sum of theirs. A minute
that has passed is what crashed holders have left behind: whoever comes by takes it off the total.
So the item stays small, and the total is always the sum of its minutes. Bronze is counted once
more by itself, in the same writes. The most that better tiers had at once stands by the minute in
which they came; one more write whenever it is outdone.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import call, error_code, or_given_back
from synapse.adapters.aws.items import CONDITION_FAILED, attributes, plain, read_item
from synapse.domain.errors import Unavailable
from synapse.domain.job import SlaTier
from synapse.domain.window import LOOK_BACK_S, Traffic
from synapse.ids import new_id
from synapse.ports import Clock, Entry

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

logger = logging.getLogger(__name__)

MINUTE_S = 60.0
MINUTE_PREFIX = "until_"
BRONZE_MINUTE_PREFIX = "bronze_until_"
PEAK_PREFIX = "peak_"
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
        self,
        model: str,
        pool: str,
        items: int,
        limit: int,
        expires_at: float,
        tier: SlaTier = SlaTier.SILVER,
    ) -> Entry | None:
        """See the port; nothing is entered for who is cancelled before it knows."""
        entering = self._enter(model, pool, items, limit, expires_at, tier)
        return await or_given_back(entering, self._leave_again)

    async def _leave_again(self, entry: Entry | None) -> None:
        if entry is not None:
            await self.leave(entry)

    async def _enter(
        self, model: str, pool: str, items: int, limit: int, expires_at: float, tier: SlaTier
    ) -> Entry | None:
        key = _key(model, pool)
        minute = math.ceil(expires_at / MINUTE_S)
        counted = await self._add(key, items, limit, minute, tier)
        if counted is None:
            if not await self._drop_passed(key, await self._read(key)):
                return None
            counted = await self._add(key, items, limit, minute, tier)
            if counted is None:
                return None
        else:
            await self._drop_passed(key, counted)
        if tier is not SlaTier.BRONZE:
            await self._note_peak(key, counted)
        ahead = self._live(counted, "total", MINUTE_PREFIX) - items
        entry = Entry(new_id(), model, pool, items, ahead, minute * MINUTE_S, tier)
        self._held.add(entry.id)
        return entry

    async def leave(self, entry: Entry) -> None:
        """See the port."""
        if entry.id not in self._held:
            return
        self._held.discard(entry.id)
        names = _names(round(entry.expires_at / MINUTE_S), entry.tier)
        try:
            await call(
                self._client.update_item,
                TableName=self._table,
                Key=attributes(_key(entry.model, entry.pool)),
                UpdateExpression=_adding(names, ":less"),
                # Gone with its minute: then it is off the total already.
                ConditionExpression="#minute >= :items",
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=attributes(
                    {":less": -entry.items, ":items": entry.items}
                ),
            )
        except ClientError as error:
            if error_code(error) != CONDITION_FAILED:
                logger.exception("entry not left; it counts until it expires")
        except Unavailable:
            logger.warning("entry not left; it counts until it expires", exc_info=True)

    async def count(self, model: str, pool: str) -> int:
        """See the port."""
        return self._live(await self._read(_key(model, pool)), "total", MINUTE_PREFIX)

    async def traffic_of(self, model: str, pool: str) -> Traffic:
        """See the port; what was in flight lately is remembered for one to two minutes."""
        item, now = await self._read(_key(model, pool)), self._clock()
        better, bronze = self._better(item), self._live(item, "bronze", BRONZE_MINUTE_PREFIX)
        minute = int(now // MINUTE_S)
        peaks = [int(item.get(f"{PEAK_PREFIX}{each}", 0)) for each in (minute, minute - 1)]
        peak = max(better, *peaks)
        best = SlaTier.BRONZE if peak == 0 else SlaTier.SILVER
        if peak and float(item.get("gold_at", 0)) > now - LOOK_BACK_S:
            best = SlaTier.GOLD
        return Traffic(better, bronze, peak, best)

    async def _add(
        self, key: _Key, items: int, limit: int, minute: int, tier: SlaTier
    ) -> dict[str, Any] | None:
        """The item with `items` more in it; None if that would be beyond `limit`."""
        if items > limit:
            return None
        now = self._clock()
        names = _names(minute, tier)
        gold = ", gold_at = :now" if tier is SlaTier.GOLD else ""
        values = {":items": items, ":room": limit - items, ":ttl": math.ceil(now + RETENTION_S)}
        if gold:
            values[":now"] = math.floor(now)
        try:
            answer = await call(
                self._client.update_item,
                TableName=self._table,
                Key=attributes(key),
                UpdateExpression=f"SET #ttl = :ttl{gold} {_adding(names, ':items')}",
                ConditionExpression="attribute_not_exists(#total) OR #total <= :room",
                ExpressionAttributeNames={**names, "#ttl": "ttl"},
                ExpressionAttributeValues=attributes(values),
                ReturnValues="ALL_NEW",
            )
        except ClientError as error:
            if error_code(error) == CONDITION_FAILED:
                return None
            raise
        return plain(answer["Attributes"])

    async def _note_peak(self, key: _Key, item: Mapping[str, Any]) -> None:
        """Write down what the better tiers have now, if it is their most in this minute."""
        better, minute = self._better(item), int(self._clock() // MINUTE_S)
        peak = f"{PEAK_PREFIX}{minute}"
        if better <= int(item.get(peak, 0)):
            return
        old = [
            name
            for name in item
            if name.startswith(PEAK_PREFIX) and int(name.removeprefix(PEAK_PREFIX)) < minute - 1
        ]
        names = {"#peak": peak, **{f"#o{number}": name for number, name in enumerate(old)}}
        removed = ", ".join(name for name in names if name != "#peak")
        try:
            await call(
                self._client.update_item,
                TableName=self._table,
                Key=attributes(key),
                UpdateExpression="SET #peak = :better" + (f" REMOVE {removed}" if removed else ""),
                ConditionExpression="attribute_not_exists(#peak) OR #peak < :better",
                ExpressionAttributeNames=names,
                ExpressionAttributeValues=attributes({":better": better}),
            )
        except ClientError as error:
            if error_code(error) != CONDITION_FAILED:
                raise
        except Unavailable:
            # It must not cost an entry that is in already.
            logger.warning("peak not noted", exc_info=True)

    async def _read(self, key: _Key) -> dict[str, Any]:
        return await read_item(self._client, self._table, key) or {}

    async def _drop_passed(self, key: _Key, item: Mapping[str, Any]) -> bool:
        """Take the minutes that have passed off the total; whether there were any items in them.

        Exactly once: only while each of them still holds what was read.
        """
        passed = self._passed(item, MINUTE_PREFIX)
        if not passed:
            return False
        bronze = self._passed(item, BRONZE_MINUTE_PREFIX)
        both = {**passed, **bronze}
        names = {f"#m{number}": minute for number, minute in enumerate(both)}
        values = {f":m{number}": items for number, items in enumerate(both.values())}
        same = [f"{name} = {value}" for name, value in zip(names, values, strict=True)]
        values[":less"] = -sum(passed.values())
        adding = "ADD #total :less"
        if bronze:
            adding += ", bronze :bronze"
            values[":bronze"] = -sum(bronze.values())
        try:
            await call(
                self._client.update_item,
                TableName=self._table,
                Key=attributes(key),
                UpdateExpression=f"{adding} REMOVE {', '.join(names)}",
                ConditionExpression=" AND ".join(same),
                ExpressionAttributeNames={"#total": "total", **names},
                ExpressionAttributeValues=attributes(values),
            )
        except ClientError as error:
            if error_code(error) != CONDITION_FAILED:
                raise
            # Somebody else has come by.
        except Unavailable:
            # Then whoever comes by next does it: this must not cost an entry that is in already.
            return False
        return any(passed.values())

    def _better(self, item: Mapping[str, Any]) -> int:
        bronze = self._live(item, "bronze", BRONZE_MINUTE_PREFIX)
        return self._live(item, "total", MINUTE_PREFIX) - bronze

    def _live(self, item: Mapping[str, Any], total: str, prefix: str) -> int:
        return int(item.get(total, 0)) - sum(self._passed(item, prefix).values())

    def _passed(self, item: Mapping[str, Any], prefix: str) -> dict[str, int]:
        now = self._clock()
        return {
            name: items
            for name, items in item.items()
            if name.startswith(prefix) and int(name.removeprefix(prefix)) * MINUTE_S <= now
        }


def _key(model: str, pool: str) -> _Key:
    return {"pk": f"in-flight#{model}#{pool}", "sk": "total"}


def _names(minute: int, tier: SlaTier) -> dict[str, str]:
    """The attributes that count an entry that expires at the end of that minute."""
    names = {"#total": "total", "#minute": f"{MINUTE_PREFIX}{minute}"}
    if tier is SlaTier.BRONZE:
        names |= {"#bronze": "bronze", "#bronze_minute": f"{BRONZE_MINUTE_PREFIX}{minute}"}
    return names


def _adding(names: Mapping[str, str], value: str) -> str:
    return "ADD " + ", ".join(f"{name} {value}" for name in names)
