"""DynamoJobStore: what lies in the table, and what a job costs."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import pytest
from boto3.dynamodb.types import TypeDeserializer

from synapse.adapters.aws.jobs import DynamoJobStore
from synapse.api.schemas import AsyncInferRequest
from synapse.application.payloads import INLINE_LIMIT_BYTES, encode_input, encode_result, stow
from synapse.domain.extension import Extension
from synapse.domain.inference import Completion, ModelInput
from synapse.domain.job import Job, JobId, JobState, Outcome, Payload, Served, Usage
from synapse.domain.token_claims import MAX_SUBJECT_CHARS
from synapse.domain.webhook_url import MAX_URL_LENGTH
from synapse.ports import Idempotency
from tests.aws import Aws
from tests.factories import NOW, a_job, a_lease, an_outcome
from tests.fakes import FakeClock, MemoryBlobStore
from tests.integration.aws.faults import counted

DAY_S = 86_400
MAX_ITEM_BYTES = 400 * 1024

WIDEST = "\U0001f600"
"""A character of 4 bytes in UTF-8, of 12 in JSON that is ASCII."""


def items(cloud: Aws) -> list[dict[str, Any]]:
    """Everything in the jobs table."""
    found = cloud.dynamodb.scan(TableName=cloud.jobs_table)["Items"]
    read = TypeDeserializer().deserialize
    return [{key: read(value) for key, value in item.items()} for item in found]


async def test_an_open_job_is_in_the_sweepers_index(cloud: Aws, store: DynamoJobStore) -> None:
    job = a_job()

    await store.create(job)

    [item] = items(cloud)
    assert item["pk"] == f"job#{job.id}"
    assert item["open_shard"].startswith("open#")
    assert item["due_at"] == Decimal(repr(job.due_at))
    assert item["ttl"] == int(job.deadline_at) + 7 * DAY_S + 1


async def test_an_ended_job_leaves_the_sweepers_index(cloud: Aws, store: DynamoJobStore) -> None:
    settled, closed = a_job(), a_job()
    await store.create_many([settled, closed])
    await store.claim([settled.id], a_lease(), NOW)

    await store.settle(an_outcome(settled.id), "batch-1", NOW)
    await store.close(closed.id, JobState.CANCELLED, None, NOW)

    for item in items(cloud):
        left = {"open_shard", "due_at", "lease_owner", "lease_expires_at"} & item.keys()
        assert not left


async def test_jobs_spread_over_the_shards(cloud: Aws, store: DynamoJobStore) -> None:
    await store.create_many([a_job() for _ in range(100)])

    assert len({item["open_shard"] for item in items(cloud)}) == 8


async def test_an_item_that_ttl_has_not_dropped_yet_is_gone_all_the_same(
    cloud: Aws, store: DynamoJobStore, clock: FakeClock
) -> None:
    job = a_job(deadline_at=NOW + 10)
    await store.create(job)

    clock.advance(10 + 7 * DAY_S + 1)

    assert len(items(cloud)) == 1
    assert await store.get(job.id) is None
    assert await store.due(clock(), 10) == []


async def test_a_key_whose_job_was_deleted_is_free(cloud: Aws, store: DynamoJobStore) -> None:
    gone, fresh = a_job(), a_job()
    key = Idempotency("key", "body")
    await store.create(gone, key)
    cloud.dynamodb.delete_item(TableName=cloud.jobs_table, Key={"pk": {"S": f"job#{gone.id}"}})

    assert (await store.create(fresh, key)).is_new
    assert (await store.create(a_job(), key)).job == fresh


async def test_tenants_keys_are_apart(store: DynamoJobStore) -> None:
    key = Idempotency("key", "body")

    assert (await store.create(a_job(tenant="acme"), key)).is_new
    assert (await store.create(a_job(tenant="acme#1"), key)).is_new


async def test_a_whole_life_costs_three_writes(cloud: Aws, store: DynamoJobStore) -> None:
    job = a_job()

    with counted(cloud.dynamodb) as calls:
        await store.create(job)
        await store.claim([job.id], a_lease(), NOW)
        await store.settle(an_outcome(job.id), "batch-1", NOW)

    assert calls == ["PutItem", "UpdateItem", "UpdateItem"]


async def test_short_deadlines_cost_a_second_write_only_once(
    cloud: Aws, store: DynamoJobStore
) -> None:
    jobs = [a_job(deadline_at=NOW + 30) for _ in range(4)]
    await store.create_many(jobs)

    with counted(cloud.dynamodb) as calls:
        for job in jobs:
            [claimed] = await store.claim([job.id], a_lease(), NOW)
            assert claimed == job.claimed(a_lease(), NOW)

    assert calls == ["UpdateItem"] * 5


async def test_an_index_that_lags_behind_misleads_nobody(cloud: Aws, store: DynamoJobStore) -> None:
    ended, waiting = a_job(), a_job()
    await store.create_many([ended, waiting])
    await store.close(ended.id, JobState.CANCELLED, None, NOW)
    _put_back_into_the_index(cloud, ended.id)

    assert await store.due(NOW + 7200, 10) == [waiting]


def _put_back_into_the_index(cloud: Aws, job_id: JobId) -> None:
    cloud.dynamodb.update_item(
        TableName=cloud.jobs_table,
        Key={"pk": {"S": f"job#{job_id}"}},
        UpdateExpression="SET open_shard = :shard, due_at = :due_at",
        ExpressionAttributeValues={":shard": {"S": "open#0"}, ":due_at": {"N": repr(NOW)}},
    )


async def test_watching_waits_ever_longer_but_never_past_its_timeout(
    store: DynamoJobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    for _ in range(12):
        await store.watch(JobId("job-1"), 30.0)
    await store.watch(JobId("job-1"), 0.2)
    await store.watch(JobId("job-2"), 30.0)

    assert waits[0] == 0.05
    assert waits[:12] == sorted(waits[:12])
    assert waits[11:] == [1.0, 0.2, 0.05]


async def test_the_largest_job_that_is_accepted_can_be_given_its_largest_result(
    cloud: Aws, store: DynamoJobStore
) -> None:
    job = await the_largest_job()
    rest = len(encode_result(Completion("", "length", Usage())))
    text = encode_result(Completion("a" * (INLINE_LIMIT_BYTES - rest), "length", Usage()))
    served = Served("p" * 64, "accelerator", 1000, "w" * 128, "f" * 64, 1e9 / 3, 1 / 3, 1 / 7)
    usage = Usage(2**31, 2**31, 2**31)
    ended = Outcome(job.id, JobState.COMPLETED, await inline(text), usage, served=served)

    await store.create(job)
    await store.claim([job.id], a_lease(), NOW)
    settled = await store.settle(ended, "batch-1", NOW)

    assert settled is not None
    assert settled.result == Payload(inline=text)
    [item] = cloud.dynamodb.scan(TableName=cloud.jobs_table)["Items"]
    assert item_bytes(item) <= MAX_ITEM_BYTES
    assert await store.get(job.id) == settled


async def the_largest_job() -> Job:
    """Each of its fields as large as the API lets it be."""
    keys = [f"{number:02d}".rjust(64, WIDEST) for number in range(16)]
    wish: dict[str, Any] = {"model": "echo", "metadata": dict.fromkeys(keys, WIDEST * 512)}
    wish["callback_url"] = "https://a.example/".ljust(MAX_URL_LENGTH, WIDEST)
    request = AsyncInferRequest.model_validate(wish)
    rest = len(encode_input(ModelInput("a"))) - 1
    return a_job(
        payload=await inline(encode_input(ModelInput("a" * (INLINE_LIMIT_BYTES - rest)))),
        model="m" * 128,
        tenant=WIDEST * MAX_SUBJECT_CHARS,
        account=WIDEST * MAX_SUBJECT_CHARS,
        announce=True,
        callback_url=request.callback_url,
        metered=True,
        metadata=request.metadata,
        requires=frozenset(Extension),
        items=8,
    )


async def inline(text: str) -> Payload:
    """The text in its job's record."""
    payload = await stow(MemoryBlobStore(), "none", text)
    assert payload.inline == text
    return payload


def item_bytes(item: Any) -> int:
    """What an item counts: names and texts in UTF-8, numbers of 38 digits 21 bytes at most."""
    values = [value["S"].encode() if "S" in value else b" " * 21 for value in item.values()]
    return sum(map(len, values)) + sum(len(name.encode()) for name in item)
