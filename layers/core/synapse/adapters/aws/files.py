"""Records of files and uploads in DynamoDB.

- `files#<tenant>` / `<file id>`: a file. Ids begin with their time, so a page is one query.
- `uploads#<tenant>` / `<upload id>`: an upload; `parts#<upload id>` / `<part id>`: a part of it.

DynamoDB drops what is past its `ttl` late, so readers look at the time too. The blobs go by the
bucket's lifecycle.
"""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import call, error_code
from synapse.adapters.aws.items import CONDITION_FAILED, attributes, plain, query_items, read_item
from synapse.adapters.file_records import (
    file_from_record,
    file_to_record,
    part_from_record,
    part_to_record,
    upload_from_record,
    upload_to_record,
)
from synapse.domain.file import FileId, StoredFile
from synapse.domain.upload import Upload, UploadId, UploadPart, UploadState
from synapse.ports import Clock, FileQuery

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

UPLOAD_KEPT_S = 3600
"""After its time: a client that completes an upload late is told what became of it."""


class DynamoFileStore:
    """The FileStore of the AWS target."""

    def __init__(self, client: DynamoDBClient, table: str, *, clock: Clock = time.time) -> None:
        self._client = client
        self._table = table
        self._clock = clock

    async def create(self, file: StoredFile) -> bool:
        """See the port."""
        record = file_to_record(file)
        item = {"pk": _files(file.tenant), "sk": file.id, "ttl": math.ceil(file.expires_at)}
        try:
            await call(
                self._client.put_item,
                TableName=self._table,
                Item=attributes(record | item),
                ConditionExpression="attribute_not_exists(pk) OR blob_key = :ours",
                # boto3 repeats a write whose answer was lost: its own is no other's.
                ExpressionAttributeValues=attributes({":ours": file.blob_key}),
            )
        except ClientError as error:
            if error_code(error) == CONDITION_FAILED:
                return False
            raise
        return True

    async def get(self, tenant: str, file_id: FileId) -> StoredFile | None:
        """See the port."""
        key = {"pk": _files(tenant), "sk": file_id}
        return self._unless_expired(await read_item(self._client, self._table, key))

    async def page(self, tenant: str, query: FileQuery) -> Sequence[StoredFile]:
        """See the port."""
        found: list[StoredFile] = []
        async for item in self._items(tenant, query):
            file = self._unless_expired(plain(item))
            if file is not None and query.purpose in (None, file.purpose):
                found.append(file)
            if len(found) == query.limit:
                break
        return found

    def _items(self, tenant: str, query: FileQuery) -> AsyncIterator[Any]:
        condition, values = "pk = :pk", {":pk": _files(tenant)}
        if query.after is not None:
            condition += f" AND sk {'<' if query.newest_first else '>'} :after"
            values[":after"] = query.after
        return query_items(
            self._client,
            self._table,
            KeyConditionExpression=condition,
            ExpressionAttributeValues=attributes(values),
            ScanIndexForward=not query.newest_first,
            Limit=query.limit,
        )

    async def delete(self, tenant: str, file_id: FileId) -> StoredFile | None:
        """See the port."""
        answer = await call(
            self._client.delete_item,
            TableName=self._table,
            Key=attributes({"pk": _files(tenant), "sk": file_id}),
            ReturnValues="ALL_OLD",
        )
        return self._unless_expired(plain(answer.get("Attributes", {})))

    def _unless_expired(self, record: dict[str, Any] | None) -> StoredFile | None:
        if not record:
            return None
        file = file_from_record(record)
        return None if file.is_expired(self._clock()) else file


class DynamoUploadStore:
    """The UploadStore of the AWS target."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    async def create(self, upload: Upload) -> None:
        """See the port."""
        await self._put(upload, upload_to_record(upload), _uploads(upload.tenant), upload.id)

    async def get(self, tenant: str, upload_id: UploadId) -> Upload | None:
        """See the port."""
        key = {"pk": _uploads(tenant), "sk": upload_id}
        record = await read_item(self._client, self._table, key)
        return upload_from_record(record) if record else None

    async def add_part(self, upload: Upload, part: UploadPart) -> None:
        """See the port."""
        await self._put(upload, part_to_record(part), _parts(upload), part.id)

    async def parts(self, upload: Upload) -> Sequence[UploadPart]:
        """See the port."""
        items = query_items(
            self._client,
            self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues=attributes({":pk": _parts(upload)}),
        )
        return [part_from_record(plain(item)) async for item in items]

    async def finish(self, upload: Upload, state: UploadState) -> Upload | None:
        """See the port."""
        try:
            answer = await call(
                self._client.update_item,
                TableName=self._table,
                Key=attributes({"pk": _uploads(upload.tenant), "sk": upload.id}),
                UpdateExpression="SET #state = :state",
                ConditionExpression="#state = :pending",
                ExpressionAttributeNames={"#state": "state"},
                ExpressionAttributeValues=attributes(
                    {":state": state.value, ":pending": UploadState.PENDING.value}
                ),
                ReturnValues="ALL_NEW",
            )
        except ClientError as error:
            if error_code(error) == CONDITION_FAILED:
                return None
            raise
        return upload_from_record(plain(answer["Attributes"]))

    async def _put(self, upload: Upload, record: dict[str, Any], pk: str, sk: str) -> None:
        keys = {"pk": pk, "sk": sk, "ttl": math.ceil(upload.expires_at + UPLOAD_KEPT_S)}
        await call(self._client.put_item, TableName=self._table, Item=attributes(record | keys))


def _files(tenant: str) -> str:
    return f"files#{tenant}"


def _uploads(tenant: str) -> str:
    return f"uploads#{tenant}"


def _parts(upload: Upload) -> str:
    return f"parts#{upload.id}"
