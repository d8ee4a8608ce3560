"""Webhooks in DynamoDB, in a table of their own, and SQS.

- `endpoints#<tenant>` / `<id>`: an endpoint with its secrets.
- `deliveries#<tenant>#<subject>` / `<id>`: a delivery, forgotten by its `ttl`.

Of their own, so that only the functions that tell and those that are asked can read the secrets.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import call, error_code
from synapse.adapters.aws.groups import group_of
from synapse.adapters.aws.items import (
    CONDITION_FAILED,
    attributes,
    plain,
    query_items,
    read_item,
)
from synapse.adapters.aws.job_items import job_of
from synapse.adapters.webhook_records import (
    delivery_from_json,
    delivery_to_json,
    endpoint_from_json,
    endpoint_to_json,
)
from synapse.domain.delivery import RETENTION_S, Delivery, DeliveryState
from synapse.domain.errors import Unavailable
from synapse.domain.file_batch import FileBatchId
from synapse.domain.webhook import Endpoint, Event, event_of_batch, event_of_job
from synapse.ports.file_batches import FileBatchStore

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_sqs.client import SQSClient

logger = logging.getLogger(__name__)

NEW = "attribute_not_exists(pk)"
MESSAGES = 10
"""That SQS takes in one call."""

LONGEST_DELAY_S = 900
"""SQS delays no message for longer."""


class DynamoEndpointStore:
    """See the port `EndpointStore`."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    async def create(self, endpoint: Endpoint) -> bool:
        """See the port."""
        return await self._put(endpoint, NEW)

    async def get(self, tenant: str, endpoint_id: str) -> Endpoint | None:
        """See the port."""
        key = {"pk": _endpoints(tenant), "sk": endpoint_id}
        item = await read_item(self._client, self._table, key)
        return endpoint_from_json(item["doc"]) if item else None

    async def of(self, tenant: str) -> Sequence[Endpoint]:
        """See the port."""
        docs = await _docs(self._client, self._table, _endpoints(tenant))
        return [endpoint_from_json(doc) for doc in docs]

    async def replace(self, endpoint: Endpoint) -> bool:
        """See the port."""
        return await self._put(endpoint, "revision = :before", endpoint.revision - 1)

    async def delete(self, tenant: str, endpoint_id: str) -> bool:
        """See the port."""
        answer = await call(
            self._client.delete_item,
            TableName=self._table,
            Key=attributes({"pk": _endpoints(tenant), "sk": endpoint_id}),
            ReturnValues="ALL_OLD",
        )
        return bool(answer.get("Attributes"))

    async def _put(self, endpoint: Endpoint, condition: str, before: int | None = None) -> bool:
        item = {
            "pk": _endpoints(endpoint.tenant),
            "sk": endpoint.id,
            "revision": endpoint.revision,
            "doc": endpoint_to_json(endpoint),
        }
        values = {} if before is None else {":before": before}
        if await _put(self._client, self._table, item, condition, values):
            return True
        # boto3 repeats a write whose answer was lost.
        return await self.get(endpoint.tenant, endpoint.id) == endpoint


class DynamoDeliveryStore:
    """See the port `DeliveryStore`."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    async def add(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """See the port."""
        stand = await asyncio.gather(*(self._add(delivery) for delivery in deliveries))
        found = {each.id: each for each in stand if each is not None}
        pending = [found[id] for id in sorted(found)]
        return [each for each in pending if each.state is DeliveryState.PENDING]

    async def get(self, tenant: str, subject: str, delivery_id: str) -> Delivery | None:
        """See the port."""
        key = {"pk": _deliveries(tenant, subject), "sk": delivery_id}
        item = await read_item(self._client, self._table, key)
        return delivery_from_json(item["doc"]) if item else None

    async def of(self, tenant: str, subject: str) -> Sequence[Delivery]:
        """See the port."""
        docs = await _docs(self._client, self._table, _deliveries(tenant, subject))
        return [delivery_from_json(doc) for doc in docs]

    async def save(self, delivery: Delivery) -> bool:
        """See the port."""
        condition = "is_open = :open AND attempts <= :attempts"
        values = {":open": 1, ":attempts": delivery.attempts}
        return await _put(self._client, self._table, _item(delivery), condition, values)

    async def take(self, delivery: Delivery, until: float) -> bool:
        """Have its next attempt to ourselves until then; False if it does not stand as given.

        For who may have two messages of a delivery: one that dies once it has sent the next has
        not deleted its own.

        Raises:
            Unavailable: it could not be written.
        """
        taken = replace(delivery, due_at=until)
        # Items from before 2026-11-23 have no `due_at` beside their document.
        condition = "is_open = :open AND attempts = :attempts"
        condition += " AND (attribute_not_exists(due_at) OR due_at = :due_at)"
        before = {":open": 1, ":attempts": delivery.attempts, ":due_at": delivery.due_at}
        if await _put(self._client, self._table, _item(taken), condition, before):
            return True
        # boto3 repeats a write whose answer was lost.
        return await self.get(delivery.tenant, delivery.subject, delivery.id) == taken

    async def _add(self, delivery: Delivery) -> Delivery | None:
        if await _put(self._client, self._table, _item(delivery), NEW, {}):
            return delivery
        return await self.get(delivery.tenant, delivery.subject, delivery.id)


class SqsDeliveryQueue:
    """See the port `DeliveryQueue`. A message names a delivery; SQS shares out by tenants."""

    def __init__(self, client: SQSClient, url: str) -> None:
        self._client = client
        self._url = url

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """See the port."""
        for start in range(0, len(deliveries), MESSAGES):
            part = deliveries[start : start + MESSAGES]
            answer = await call(
                self._client.send_message_batch,
                QueueUrl=self._url,
                Entries=[
                    {
                        "Id": str(n),
                        "MessageBody": _message(each),
                        "MessageGroupId": group_of(each.tenant),
                    }
                    for n, each in enumerate(part)
                ],
            )
            if failed := answer.get("Failed", []):
                codes = sorted({entry["Code"] for entry in failed})
                raise Unavailable(f"{len(failed)} deliveries could not be queued ({codes})")

    async def send_later(self, delivery: Delivery, delay_s: float) -> None:
        """Have a message come after so long, or as long as SQS delays one.

        The message that was received is not hidden for that: it would stay in flight, and of those
        a queue has 120,000 at most. A tenant whose receiver is down would have them all in a day.

        Raises:
            Unavailable: it could not be queued.
        """
        await call(
            self._client.send_message,
            QueueUrl=self._url,
            MessageBody=_message(delivery),
            MessageGroupId=group_of(delivery.tenant),
            DelaySeconds=min(LONGEST_DELAY_S, max(0, math.ceil(delay_s))),
        )


def key_of_message(body: str) -> tuple[str, str, str]:
    """Tenant, subject and id of the delivery that a message names.

    Raises:
        ValueError: it is no message of ours.
    """
    try:
        record = json.loads(body)
        return str(record["tenant"]), str(record["subject"]), str(record["id"])
    except (KeyError, TypeError) as error:
        raise ValueError("the message names no delivery") from error


async def event_of_record(record: Mapping[str, Any], batches: FileBatchStore) -> Event | None:
    """What a record of the tables' streams is to be told of; None if it is of nothing.

    The end of a job is the change of its item, that of a file batch the going of its mark among
    the open ones, whose item says whose it was.

    Raises:
        Unavailable: the batch cannot be read.
        KeyError: the record is none of ours.
    """
    change = record["dynamodb"]
    if "NewImage" in change:
        job = job_of(plain(change["NewImage"]))
        return event_of_job(job) if job.is_told and job.state.is_final else None
    mark = plain(change["OldImage"])
    batch = await batches.get(mark["tenant"], FileBatchId(mark["sk"]))
    return event_of_batch(batch) if batch is not None and batch.status.is_final else None


async def _put(
    client: DynamoDBClient,
    table: str,
    item: Mapping[str, object],
    condition: str,
    values: Mapping[str, object],
) -> bool:
    """Put an item if the condition holds."""
    arguments: dict[str, Any] = {"Item": attributes(item), "ConditionExpression": condition}
    if values:
        arguments["ExpressionAttributeValues"] = attributes(values)
    try:
        await call(client.put_item, TableName=table, **arguments)
    except ClientError as error:
        if error_code(error) != CONDITION_FAILED:
            raise
        return False
    return True


async def _docs(client: DynamoDBClient, table: str, pk: str) -> list[str]:
    items = query_items(
        client,
        table,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues=attributes({":pk": pk}),
    )
    return [plain(item)["doc"] async for item in items]


def _item(delivery: Delivery) -> dict[str, object]:
    due = {} if delivery.due_at is None else {"due_at": delivery.due_at}
    return due | {
        "pk": _deliveries(delivery.tenant, delivery.subject),
        "sk": delivery.id,
        "is_open": 1 if delivery.state is DeliveryState.PENDING else 0,
        "attempts": delivery.attempts,
        "ttl": math.ceil(delivery.created_at + RETENTION_S),
        "doc": delivery_to_json(delivery),
    }


def _message(delivery: Delivery) -> str:
    key = {"tenant": delivery.tenant, "subject": delivery.subject, "id": delivery.id}
    return json.dumps(key, separators=(",", ":"))


def _endpoints(tenant: str) -> str:
    return f"endpoints#{tenant}"


def _deliveries(tenant: str, subject: str) -> str:
    return f"deliveries#{tenant}#{subject}"
