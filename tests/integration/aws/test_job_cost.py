"""What DynamoDB bills for a job of the shipped store, by its rules, and what `domain.cost` says."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from synapse.adapters.aws.jobs import DynamoJobStore
from synapse.domain.cost import Payload as Sizes
from synapse.domain.cost import job_writes
from synapse.domain.job import JobState, Payload
from tests.aws import Aws, aws, intercepted
from tests.factories import NOW, a_job, a_lease, an_outcome

INDEX_KEYS = ("open_shard", "due_at")
Item = Mapping[str, Any]


@pytest.mark.parametrize(("prompt_kib", "result_kib"), [(0.1, 0.1), (9, 0.4), (36, 1.5), (100, 90)])
def test_write_units_of_a_job_are_as_many_as_the_formula_says(
    prompt_kib: float, result_kib: float
) -> None:
    with aws() as env:
        billed = _Billed(env)
        with intercepted(env.dynamodb, billed):
            asyncio.run(_whole_life(env, prompt_kib, result_kib))

    # What else is in a record is about 0.7 KiB, which rounding to whole ones may count or not.
    assert job_writes(Sizes(prompt_kib, result_kib)) == pytest.approx(billed.units, abs=5)


def test_a_payload_in_the_bucket_is_not_billed_with_the_item() -> None:
    assert job_writes(Sizes(500, 500)) == job_writes(Sizes(0.1, 0.1)) == 13


async def _whole_life(env: Aws, prompt_kib: float, result_kib: float) -> None:
    """From acceptance to being counted."""
    store = DynamoJobStore(
        env.dynamodb, env.jobs_table, clock=lambda: NOW, usage_table=env.access_table
    )
    job = a_job(payload=_text(prompt_kib))
    await store.create(job)
    await store.claim([job.id], a_lease("b-1"), NOW + 1)
    outcome = an_outcome(job.id, JobState.COMPLETED, result=_text(result_kib))
    await store.settle(outcome, "b-1", NOW + 2)


def _text(kib: float) -> Payload:
    return Payload(inline="x" * int(kib * 1024))


class _Billed:
    """Adds up write units: of an item the larger of before and after, of its index what changes."""

    def __init__(self, env: Aws) -> None:
        self._jobs, self.units = env.jobs_table, 0

    def __call__(self, call: Callable[..., Any], operation: str, arguments: Any) -> Any:
        """Pass an operation on, and bill it."""
        writes = list(_writes(operation, arguments))
        before = [_item(call, table, key) for table, key, _ in writes]
        answer = call(operation, arguments)
        for (table, key, times), old in zip(writes, before, strict=True):
            new = _item(call, table, key)
            self.units += times * math.ceil(max(_bytes(old), _bytes(new)) / 1024)
            if table == self._jobs:
                self.units += _index_units(old, new)
        return answer


def _writes(operation: str, arguments: Any) -> list[tuple[str, Item, int]]:
    """Table, key, and how many times the units are billed: in a transaction twice."""
    if operation in ("PutItem", "UpdateItem"):
        return [(arguments["TableName"], _key(arguments), 1)]
    if operation == "TransactWriteItems":
        parts = [part for each in arguments["TransactItems"] for part in each.values()]
        return [(part["TableName"], _key(part), 2) for part in parts]
    return []


def _key(part: Any) -> Item:
    if "Key" in part:
        return dict(part["Key"])
    return {name: part["Item"][name] for name in ("pk", "sk") if name in part["Item"]}


def _item(call: Callable[..., Any], table: str, key: Item) -> Item | None:
    found = call("GetItem", {"TableName": table, "Key": key, "ConsistentRead": True})
    item: Item | None = found.get("Item")
    return item


def _index_units(old: Item | None, new: Item | None) -> int:
    """An entry that moves is taken out and put in anew."""
    was, now = (
        {each: item.get(each) for each in INDEX_KEYS} if item else {} for item in (old, new)
    )
    if was == now:
        return 0
    return ("open_shard" in was and was["open_shard"] is not None) + (
        now.get("open_shard") is not None
    )


def _bytes(item: Item | None) -> int:
    """By DynamoDB's rules: names and values; a number takes half a byte a digit."""
    return sum(len(name) + _value_bytes(value) for name, value in (item or {}).items())


def _value_bytes(value: Any) -> int:
    [(kind, content)] = value.items()
    if kind == "S":
        return len(content.encode())
    if kind == "N":
        return len(content) // 2 + 2
    if kind == "M":
        return 3 + _bytes(content) + len(content)
    if kind == "L":
        return 3 + sum(1 + _value_bytes(each) for each in content)
    return 1
