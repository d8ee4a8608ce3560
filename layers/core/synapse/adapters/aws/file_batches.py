"""The records of file batches in DynamoDB, in the table of files.

- `batches#<tenant>` / `<batch id>`: a batch. Ids begin with their time, so a page is one query.
- `open-batches` / `<batch id>`: its tenant, there until the batch has ended. Both items come and
  the second goes in one transaction with what it goes by; a step in between is one plain write.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import call, error_code
from synapse.adapters.aws.items import (
    CONDITION_FAILED,
    REFUSED,
    Update,
    attributes,
    plain,
    query_items,
    read_item,
    transact,
)
from synapse.adapters.file_batch_records import file_batch_from_json, file_batch_to_json
from synapse.domain.errors import Unavailable
from synapse.domain.file_batch import RETENTION_S, FileBatch, FileBatchId

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

OPEN = "open-batches"


class DynamoFileBatchStore:
    """The FileBatchStore of the AWS target."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    async def create(self, batch: FileBatch) -> None:
        """See the port."""
        item = {
            "pk": _batches(batch.tenant),
            "sk": batch.id,
            "ttl": math.ceil(batch.expires_at + RETENTION_S),
            **_changing(batch),
        }
        marker = {"pk": OPEN, "sk": batch.id, "tenant": batch.tenant}
        put = {
            "TableName": self._table,
            "Item": attributes(item),
            "ConditionExpression": "attribute_not_exists(pk)",
        }
        put_marker = {"TableName": self._table, "Item": attributes(marker)}
        try:
            is_ours = await self._both(batch, {"Put": put}, {"Put": put_marker})
        except Unavailable:
            # Told as refused, it would be run all the same, beside the one its caller sends again.
            is_ours = await self._is_written(batch)
            if not is_ours:
                raise
        if not is_ours:
            raise ValueError(f"there is a batch {batch.id} already")

    async def get(self, tenant: str, batch_id: FileBatchId) -> FileBatch | None:
        """See the port."""
        key = {"pk": _batches(tenant), "sk": batch_id}
        record = await read_item(self._client, self._table, key)
        return file_batch_from_json(record["doc"]) if record else None

    async def save(self, batch: FileBatch) -> bool:
        """See the port."""
        update = Update().put(_changing(batch)).only_if_equal({"revision": batch.revision - 1})
        key = attributes({"pk": _batches(batch.tenant), "sk": batch.id})
        arguments = {"TableName": self._table, "Key": key, **update.arguments()}
        if batch.status.is_final:
            marker = {"TableName": self._table, "Key": attributes({"pk": OPEN, "sk": batch.id})}
            return await self._both(batch, {"Update": arguments}, {"Delete": marker})
        try:
            await call(self._client.update_item, **arguments)
        except ClientError as error:
            if error_code(error) != CONDITION_FAILED:
                raise
            return await self._is_written(batch)
        return True

    async def page(self, tenant: str, after: FileBatchId | None, limit: int) -> Sequence[FileBatch]:
        """See the port."""
        condition, values = "pk = :pk", {":pk": _batches(tenant)}
        if after is not None:
            condition += " AND sk < :after"
            values[":after"] = after
        items = await self._query(condition, values, limit, ScanIndexForward=False, Limit=limit)
        return [_batch(item) for item in items]

    async def open(self) -> Sequence[FileBatch]:
        """See the port."""
        items = await self._query("pk = :pk", {":pk": OPEN}, None)
        markers = [plain(item) for item in items]
        found = await asyncio.gather(*(self.get(m["tenant"], m["sk"]) for m in markers))
        return [batch for batch in found if batch is not None and not batch.status.is_final]

    async def _query(
        self, condition: str, values: dict[str, str], limit: int | None, **options: Any
    ) -> list[Any]:
        """The items, at most as many as the limit says."""
        found: list[Any] = []
        items = query_items(
            self._client,
            self._table,
            KeyConditionExpression=condition,
            ExpressionAttributeValues=attributes(values),
            **options,
        )
        async for item in items:
            found.append(item)
            if len(found) == limit:
                break
        return found

    async def _both(self, batch: FileBatch, write: Any, marker: Any) -> bool:
        """Write the batch and its marker, both or none; False if the batch's part was refused."""
        reasons = await transact(self._client, [write, marker])
        if not reasons:
            return True
        if reasons[0] != REFUSED:
            raise Unavailable("the batch is being changed by others at this moment")
        return await self._is_written(batch)

    async def _is_written(self, batch: FileBatch) -> bool:
        """Whether a refused write had been done before: boto3 repeats one whose answer is lost."""
        return await self.get(batch.tenant, batch.id) == batch


def _changing(batch: FileBatch) -> dict[str, Any]:
    return {"doc": file_batch_to_json(batch), "revision": batch.revision}


def _batch(item: Any) -> FileBatch:
    return file_batch_from_json(plain({"doc": item["doc"]})["doc"])


def _batches(tenant: str) -> str:
    return f"batches#{tenant}"
