"""The shape of a job's item in DynamoDB.

Item `job#<id>`: the job's flat record (`synapse.adapters.records`) and

- `open_shard`, `due_at`: keys of the sparse index `open-jobs`, there while the job is open;
- `write_id`: of the last write. boto3 repeats a write whose answer was lost; finding its own id
  there, the repetition knows that it has already happened;
- `metadata`: as JSON text, because a DynamoDB map takes no empty key;
- `ttl`: when DynamoDB may drop the item. It drops late, so readers look at it too.
"""

from __future__ import annotations

import json
import math
import uuid
from collections.abc import Mapping
from typing import Any
from zlib import crc32

from synapse.adapters.records import Record, job_from_record, job_to_record
from synapse.domain.job import Job, JobId

OPEN_INDEX = "open-jobs"
OPEN_SHARDS = [f"open#{number}" for number in range(8)]
"""Partitions of the index; each takes 1,000 writes a second."""

ENDED: dict[str, Any] = dict.fromkeys(("lease_owner", "lease_expires_at", "open_shard", "due_at"))
"""What an ended job has no more of."""


def pk(job_id: JobId) -> str:
    """The key of a job's item."""
    return f"job#{job_id}"


def job_id_of(key: str) -> JobId:
    """The job of an item's key."""
    return JobId(key.removeprefix("job#"))


def new_item(job: Job, retention_s: float) -> Record:
    """The item of a new job."""
    return {
        **_record(job),
        "pk": pk(job.id),
        "ttl": math.ceil(job.deadline_at + retention_s),
        "write_id": new_write_id(),
    }


def job_of(item: Mapping[str, Any]) -> Job:
    """The job of an item."""
    metadata = json.loads(item["metadata"]) if "metadata" in item else {}
    return job_from_record({**item, "metadata": metadata})


def new_write_id() -> str:
    """The name of one write."""
    return uuid.uuid4().hex


def changes(old: Job, new: Job) -> Record:
    """What has to be set (or, as None, removed) to make the item of `old` that of `new`."""
    before, after = _record(old), _record(new)
    keys = [key for key in before | after if before.get(key) != after.get(key)]
    return {key: after.get(key) for key in keys}


def _record(job: Job) -> Record:
    record = job_to_record(job)
    if "metadata" in record:
        record["metadata"] = json.dumps(record["metadata"])
    if job.due_at is not None:
        record["open_shard"] = OPEN_SHARDS[crc32(job.id.encode()) % len(OPEN_SHARDS)]
        record["due_at"] = job.due_at
    return record
