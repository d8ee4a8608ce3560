"""Meters in the access table, all items of a tenant in one partition.

- `meter#<tenant>` / `account#<account>`, or `total`: a meter. `r<minute>` and `t<minute>` are its
  requests and tokens of a minute, `usd<month>` its money and `held<month>` what of that is only
  reserved, `open` what is under way.
- `meter#<tenant>` / `open#<expires at>#<name>`: an open reservation.

A reservation is made, and settled, in one transaction with its meters: either all of it is
counted or nothing, and once. It is decided by what is read first, so that what does not fit costs
no transaction; the transaction's conditions hold what others have done in between.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import or_given_back, unavailable
from synapse.adapters.aws.items import (
    REFUSED,
    attributes,
    plain,
    query_items,
    read_item,
    transact,
)
from synapse.adapters.reservation_records import reservation_from_json, reservation_to_json
from synapse.domain.access import Limits
from synapse.domain.errors import Unavailable
from synapse.domain.limiting import Measure, Verdict, rooms, standing_of, verdict_on
from synapse.domain.meter_ledger import EXPIRY_EVERY_S
from synapse.domain.metering import (
    NOTHING_USED,
    Bounds,
    Counts,
    MeterId,
    Reservation,
    ReservationId,
    Used,
    minute_of,
    month_of,
)
from synapse.domain.retry import RetryPolicy
from synapse.ports import Clock

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

CONFLICTS = RetryPolicy(max_attempts=10, base_s=0.01, max_s=0.3)
"""Others at the same meter at the same moment: DynamoDB refuses all but one without a decision."""

KEPT_MINUTES = 2
"""The last minute's counts stay a little: not everybody's clock is there yet."""


MAX_TENANTS = 1000
"""Of so many it is kept when they were last looked through; of others it is done once too often."""


class DynamoMeter:
    """The Meter of the AWS target."""

    def __init__(self, client: DynamoDBClient, table: str, *, clock: Clock = time.time) -> None:
        self._client = client
        self._table = table
        self._clock = clock
        self._expired_at: dict[str, float] = {}

    async def reserve(self, asked: Reservation, bounds: Bounds) -> Verdict:
        """See the port; nothing is reserved for who is cancelled before it knows."""

        async def unused(verdict: Verdict) -> None:
            if verdict.refusal is None and verdict.is_new:
                await self.settle(asked.id, NOTHING_USED)

        return await or_given_back(self._reserve(asked, bounds), unused)

    async def _reserve(self, asked: Reservation, bounds: Bounds) -> Verdict:
        for failures in range(1, CONFLICTS.max_attempts + 1):
            items = await self._read(asked.meters)
            counts = {meter: _counts(items[meter], asked.at) for meter in bounds}
            verdict = verdict_on(bounds, counts, asked)
            if verdict.refusal is not None:
                if verdict.refusal.is_held and await self._expire(asked):
                    continue
                if asked.is_job and await self._is_open(asked.id):
                    return Verdict(None, verdict.standing, is_new=False)
                return verdict
            writes = [
                _put(asked),
                *(_reserving(m, bounds[m], items[m], asked) for m in asked.meters),
            ]
            try:
                reasons = await self._transact(*writes)
            except Unavailable:
                # Made and told as refused, it would be held until its time is up.
                if not await self._is_open(asked.id):
                    raise
                return verdict
            if not reasons:
                return verdict
            if reasons[0] == REFUSED:
                return Verdict(None, standing_of(bounds, counts, asked.at), is_new=False)
            if REFUSED not in reasons:
                await asyncio.sleep(CONFLICTS.delay_s(failures, random.random()))
        raise _crowded()

    async def settle(self, reservation_id: ReservationId, used: Used | None) -> None:
        """See the port. Whatever AWS says, its caller has an answer to give: he is told no more."""
        try:
            item = await read_item(self._client, self._table, _place(reservation_id))
            if item is not None:
                reservation = reservation_from_json(reservation_id, item["doc"])
                await self._settle(reservation, reservation.counted_as(used))
        except ClientError as error:
            raise unavailable(error) from error

    async def _settle(self, reservation: Reservation, used: Used) -> None:
        now = self._clock()
        changes = [_settling(meter, reservation, used, now) for meter in reservation.meters]
        for failures in range(1, CONFLICTS.max_attempts + 1):
            reasons = await self._transact(_delete(reservation.id), *changes)
            if not reasons or reasons[0] == REFUSED:
                return
            await asyncio.sleep(CONFLICTS.delay_s(failures, random.random()))
        raise _crowded()

    async def _expire(self, asked: Reservation) -> bool:
        """Settle what crashed holders of the tenant have left; whether there was any."""
        tenant, now = asked.id.tenant, asked.at
        if 0 <= now - self._expired_at.get(tenant, 0.0) < EXPIRY_EVERY_S:
            return False
        self._expired_at.pop(tenant, None)
        self._expired_at[tenant] = now
        while len(self._expired_at) > MAX_TENANTS:
            del self._expired_at[next(iter(self._expired_at))]
        query = query_items(
            self._client,
            self._table,
            KeyConditionExpression="pk = :pk AND sk BETWEEN :first AND :last",
            ExpressionAttributeValues=attributes(
                {":pk": _pk(tenant), ":first": "open#", ":last": f"open#{int(now):012d}#\uffff"}
            ),
        )
        found = [_reservation(tenant, plain(item)) async for item in query]
        expired = [reservation for reservation in found if reservation.has_expired(now)]
        for reservation in expired:
            await self._settle(reservation, reservation.all_used)
        return bool(expired)

    async def _is_open(self, reservation_id: ReservationId) -> bool:
        return await read_item(self._client, self._table, _place(reservation_id)) is not None

    async def _read(self, meters: Sequence[MeterId]) -> dict[MeterId, Mapping[str, Any]]:
        items = await asyncio.gather(
            *(read_item(self._client, self._table, _meter(meter)) for meter in meters)
        )
        return {meter: item or {} for meter, item in zip(meters, items, strict=True)}

    async def _transact(self, *writes: Mapping[str, Any]) -> Sequence[str]:
        """Do all of the writes or none; if none, what came of each."""
        named = [
            {verb: {"TableName": self._table, **write}}
            for each in writes
            for verb, write in each.items()
        ]
        return await transact(self._client, named)


def _crowded() -> Unavailable:
    return Unavailable("so much comes at once that it could not be counted", retry_after_s=1)


def _pk(tenant: str) -> str:
    return f"meter#{tenant}"


def _meter(meter: MeterId) -> dict[str, object]:
    sort = f"account#{meter.account}" if meter.account else "total"
    return {"pk": _pk(meter.tenant), "sk": sort}


def _place(reservation_id: ReservationId) -> dict[str, object]:
    tenant, name, expires_at = reservation_id
    return {"pk": _pk(tenant), "sk": f"open#{expires_at:012d}#{name}"}


def _reservation(tenant: str, item: Mapping[str, Any]) -> Reservation:
    _, expires_at, name = item["sk"].split("#", 2)
    return reservation_from_json(ReservationId(tenant, name, int(expires_at)), item["doc"])


def _put(reservation: Reservation) -> dict[str, Any]:
    item = _place(reservation.id) | {"doc": reservation_to_json(reservation)}
    return {
        "Put": {"Item": attributes(item), "ConditionExpression": "attribute_not_exists(pk)"},
    }


def _delete(reservation_id: ReservationId) -> dict[str, Any]:
    key = attributes(_place(reservation_id))
    return {"Delete": {"Key": key, "ConditionExpression": "attribute_exists(pk)"}}


def _names(at: float) -> dict[Measure, str]:
    """The attributes in which a reservation of that moment is counted."""
    minute, month = minute_of(at), month_of(at)
    return {
        Measure.SPEND: f"usd{month}",
        Measure.REQUESTS: f"r{minute}",
        Measure.TOKENS: f"t{minute}",
        Measure.CONCURRENT: "open",
    }


def _held(at: float) -> str:
    """The attribute of the money that is reserved at that moment, and open."""
    return f"held{month_of(at)}"


def _counts(item: Mapping[str, Any], now: float) -> Counts:
    names = _names(now)
    spent, requests, tokens, under_way = (int(item.get(names[each], 0)) for each in Measure)
    # Earlier versions do not count it, and may settle what this one has reserved.
    held = max(0, int(item.get(_held(now), 0))) if under_way else 0
    return Counts(minute_of(now), requests, tokens, month_of(now), spent, under_way, held)


def _reserving(
    meter: MeterId, limits: Limits, item: Mapping[str, Any], asked: Reservation
) -> dict[str, Any]:
    """Count what is asked, if there is still room for it; and forget minutes that have passed."""
    names = _names(asked.at)
    amounts = (asked.nano_usd, asked.requests, asked.tokens, asked.requests)
    room = {measure: int(most) for measure, most, _ in rooms(limits, asked)}
    passed = [name for name in item if _has_passed(name, asked.at)]
    remove = f" REMOVE {', '.join(f'#p{n}' for n in range(len(passed)))}" if passed else ""
    return {
        "Update": {
            "Key": attributes(_meter(meter)),
            "UpdateExpression": "ADD "
            + ", ".join(f"#m{m} :m{m}" for m in map(int, Measure))
            + ", #held :held"
            + remove,
            "ExpressionAttributeNames": {f"#m{int(m)}": names[m] for m in Measure}
            | {"#held": _held(asked.at)}
            | {f"#p{n}": name for n, name in enumerate(passed)},
            "ExpressionAttributeValues": attributes(
                {f":m{int(m)}": amounts[m] for m in Measure}
                | {":held": asked.nano_usd}
                | {f":room{int(m)}": most for m, most in room.items()}
            ),
            **({"ConditionExpression": _has_room(room)} if room else {}),
        }
    }


def _has_room(room: Mapping[Measure, int]) -> str:
    return " AND ".join(
        f"(attribute_not_exists(#m{int(m)}) OR #m{int(m)} <= :room{int(m)})" for m in room
    )


def _settling(meter: MeterId, reservation: Reservation, used: Used, now: float) -> dict[str, Any]:
    """Correct what was counted, in the windows that have not passed."""
    names = _names(reservation.at)
    changes = {
        names[Measure.SPEND]: used.spent(reservation) - reservation.nano_usd,
        names[Measure.REQUESTS]: used.requests - reservation.requests,
        names[Measure.TOKENS]: used.tokens - reservation.tokens,
        names[Measure.CONCURRENT]: -reservation.requests,
        _held(reservation.at): -reservation.nano_usd,
    }
    current = {*_names(now).values(), _held(now)}
    kept = [(name, change) for name, change in changes.items() if change and name in current]
    return {
        "Update": {
            "Key": attributes(_meter(meter)),
            "UpdateExpression": "ADD " + ", ".join(f"#m{n} :m{n}" for n in range(len(kept))),
            "ExpressionAttributeNames": {f"#m{n}": name for n, (name, _) in enumerate(kept)},
            "ExpressionAttributeValues": attributes(
                {f":m{n}": change for n, (_, change) in enumerate(kept)}
            ),
        }
    }


def _has_passed(name: str, now: float) -> bool:
    """Whether an attribute is of a minute, or a month, that nobody asks for any more."""
    if name[:1] in ("r", "t") and name[1:].isdigit():
        return int(name[1:]) <= minute_of(now) - KEPT_MINUTES
    last = month_of(now - 2 * 86_400.0)
    return any(name.startswith(kind) and name < f"{kind}{last}" for kind in ("usd", "held"))
