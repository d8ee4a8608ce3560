"""The books of the deployed application, read from its tables."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from synapse.adapters.aws.items import attributes, plain, query_items
from synapse.adapters.aws.job_items import job_of, pk
from synapse.adapters.aws.usage import DynamoUsageStore
from synapse.domain.access import DEFAULT_TENANT
from synapse.domain.api_key import key_id_of
from synapse.domain.job import JobId
from tests.chaos.books import Books
from tests.chaos.oracle import Violation

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient

    from tests.chaos.cloud import Cloud

FIRST_DAY, LAST_DAY = "2000-01-01", "2100-01-01"


def of_cloud(cloud: Cloud, metered: str) -> Books:
    """The books as they are; `metered` is the key that has limits.

    Raises:
        Violation: its meter does not show what is reserved.
    """
    dynamodb, outputs = cloud.emulator.dynamodb, cloud.stack.outputs
    access = outputs["AccessTableName"]
    items = _all(dynamodb, outputs["JobsTableName"])
    jobs = tuple(job_of(item) for item in items if item["pk"].startswith(pk(JobId(""))))
    usage = DynamoUsageStore(dynamodb, access)
    return Books(
        jobs,
        keys=sum(item["pk"].startswith("idem#") for item in items),
        used=asyncio.run(usage.used(DEFAULT_TENANT, FIRST_DAY, LAST_DAY)),
        reserved=asyncio.run(_reserved(dynamodb, access, metered, cloud.machine.now())),
        spent=None,
    )


async def _reserved(
    client: DynamoDBClient, table: str, metered: str, now: float
) -> tuple[str, ...]:
    """For whom something is reserved whose time is not up: what is older counts no more."""
    query = query_items(
        client,
        table,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues=attributes({":pk": f"meter#{DEFAULT_TENANT}"}),
    )
    items = {item["sk"]: item for item in [plain(each) async for each in query]}
    is_open = [sk.split("#", 2) for sk in items if sk.startswith("open#")]
    shown = items.get(f"account#{key_id_of(metered)}", {}).get("open", 0)
    if shown != len(is_open):
        raise Violation(f"the meter shows {shown} under way, {len(is_open)} are reserved")
    return tuple(name for _, expires_at, name in is_open if int(expires_at) > now)


def _all(client: DynamoDBClient, table: str) -> list[dict[str, Any]]:
    pages = client.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
    return [plain(item) for page in pages for item in page["Items"]]
