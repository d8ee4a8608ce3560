"""Keys and tenants in the access table.

- `key#<id>` / `key`: a key, as a request finds it.
- `keys#<tenant>` / `<id>`: the same again, as a tenant's keys are listed. Both are written in one
  transaction, so that a list is never behind: there is no index that would be.
- `tenants` / `<name>`: a tenant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from synapse.adapters.aws.calls import call
from synapse.adapters.aws.items import (
    REFUSED,
    attributes,
    plain,
    query_items,
    read_item,
    transact,
)
from synapse.adapters.key_records import (
    key_from_json,
    key_to_json,
    tenant_from_json,
    tenant_to_json,
)
from synapse.domain.access import Tenant
from synapse.domain.api_key import ApiKey
from synapse.domain.errors import Unavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

TENANTS = "tenants"
KEY = "key"


class DynamoKeyStore:
    """The KeyStore of the AWS target."""

    def __init__(self, client: DynamoDBClient, table: str) -> None:
        self._client = client
        self._table = table

    async def create(self, key: ApiKey) -> None:
        """See the port."""
        if not await self._put_both(key, "attribute_not_exists(pk)", {}):
            raise ValueError(f"there is a key {key.id!r} already")

    async def get(self, key_id: str) -> ApiKey | None:
        """See the port."""
        item = await read_item(self._client, self._table, {"pk": f"key#{key_id}", "sk": KEY})
        return key_from_json(item["doc"]) if item else None

    async def keys(self, tenant: str) -> Sequence[ApiKey]:
        """See the port."""
        return [key_from_json(doc) for doc in await self._docs(f"keys#{tenant}")]

    async def replace(self, key: ApiKey) -> bool:
        """See the port."""
        return await self._put_both(key, "revision = :before", {":before": key.revision - 1})

    async def tenant(self, name: str) -> Tenant:
        """See the port."""
        item = await read_item(self._client, self._table, {"pk": TENANTS, "sk": name})
        return tenant_from_json(item["doc"]) if item else Tenant(name)

    async def tenants(self) -> Sequence[Tenant]:
        """See the port."""
        return [tenant_from_json(doc) for doc in await self._docs(TENANTS)]

    async def describe(self, tenant: Tenant) -> None:
        """See the port."""
        item = {"pk": TENANTS, "sk": tenant.name, "doc": tenant_to_json(tenant)}
        await call(self._client.put_item, TableName=self._table, Item=attributes(item))

    async def _put_both(self, key: ApiKey, condition: str, values: dict[str, object]) -> bool:
        """Whether the condition held of what was there."""
        written = {"revision": key.revision, "doc": key_to_json(key)}
        places = ({"pk": f"key#{key.id}", "sk": KEY}, {"pk": f"keys#{key.tenant}", "sk": key.id})
        puts: list[Any] = [
            {
                "Put": {
                    "TableName": self._table,
                    "Item": attributes(place | written),
                    "ConditionExpression": condition,
                    **({"ExpressionAttributeValues": attributes(values)} if values else {}),
                }
            }
            for place in places
        ]
        reasons = await transact(self._client, puts)
        if reasons and REFUSED not in reasons:
            raise Unavailable("the key is being changed by others at this moment", retry_after_s=1)
        return not reasons

    async def _docs(self, partition: str) -> list[str]:
        items = query_items(
            self._client,
            self._table,
            KeyConditionExpression="pk = :pk",
            ExpressionAttributeValues=attributes({":pk": partition}),
        )
        return [plain(item)["doc"] async for item in items]
