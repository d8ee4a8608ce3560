"""A job as flat, plain data: what the stores of both targets keep of it.

Flat, because conditional writes and indexes look at single fields. Records are our own writing
and are trusted.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from synapse.domain.extension import NO_EXTENSIONS, Extension, Extensions
from synapse.domain.job import (
    Failure,
    Job,
    JobId,
    JobState,
    Lease,
    Outcome,
    Payload,
    Priority,
    Served,
    SlaTier,
    Usage,
)

Record = dict[str, Any]
"""A job as flat data: texts, numbers, and one mapping of texts; None and empty are left out."""

_RECEIPT = ("cold_ms", "active_usd", "warm_usd")
"""The numbers of a receipt that follow from nothing else in the record."""


def job_to_record(job: Job) -> Record:
    """The flat record of a job; every field that a conditional write checks is a key of its own."""
    record: Record = {
        "id": job.id,
        "model": job.model,
        "version": job.version,
        "priority": job.priority.value,
        "sla": job.sla.value,
        "tokens": job.tokens,
        "created_at": job.created_at,
        "deadline_at": job.deadline_at,
        "state": job.state.value,
        "tenant": job.tenant,
        "sends": job.sends,
        "sent_at": job.sent_at,
        "losses": job.losses,
    }
    if job.resends:
        record["resends"] = job.resends
    if job.account:
        record["account"] = job.account
    if job.announce:
        # A number, which a DynamoDB stream can be filtered by.
        record["announce"] = 1
    if job.callback_url is not None:
        record["callback_url"] = job.callback_url
    if job.metered:
        record["metered"] = 1
    _put_payload(record, "payload", job.payload)
    if job.metadata:
        record["metadata"] = dict(job.metadata)
    if job.requires:
        record["requires"] = ",".join(sorted(job.requires))
    if job.items != 1:
        record["items"] = job.items
    if job.lease is not None:
        record["lease_owner"] = job.lease.owner
        record["lease_expires_at"] = job.lease.expires_at
    if job.started_at is not None:
        record["started_at"] = job.started_at
    if job.finished_at is not None:
        record["finished_at"] = job.finished_at
    _put_ending(record, job)
    return record


def outcome_to_record(outcome: Outcome) -> Record:
    """The part of a job's record that an outcome decides; what is None there is to be removed."""
    record: Record = {"state": outcome.state.value}
    if outcome.began_at is not None or outcome.unrun:
        record["started_at"] = None if outcome.unrun else outcome.began_at
    _put_ending(record, outcome)
    return record


def _put_payload(record: Record, key: str, payload: Payload | None) -> None:
    if payload is not None and payload.inline is not None:
        record[key] = payload.inline
    if payload is not None and payload.blob_key is not None:
        record[f"{key}_key"] = payload.blob_key


def _put_ending(record: Record, end: Job | Outcome) -> None:
    _put_payload(record, "result", end.result)
    if end.usage is not None:
        record["prompt_tokens"] = end.usage.prompt_tokens
        record["completion_tokens"] = end.usage.completion_tokens
        if end.usage.cached_tokens is not None:
            record["cached_tokens"] = end.usage.cached_tokens
    if end.failure is not None:
        record["failure_code"] = end.failure.code
        record["failure_message"] = end.failure.message
        if end.failure.param is not None:
            record["failure_param"] = end.failure.param
    if end.served is not None:
        record["served_pool"] = end.served.pool
        record["served_accelerator"] = end.served.accelerator
        record["served_batch_size"] = end.served.batch_size
        if end.served.worker:
            record["served_worker"] = end.served.worker
        if end.served.fallback:
            record["served_fallback"] = end.served.fallback
        for key in _RECEIPT:
            if value := getattr(end.served, key):
                record[f"served_{key}"] = value


def job_from_record(record: Mapping[str, Any]) -> Job:
    """The job of a record that `job_to_record` wrote; keys foreign to a job are ignored."""
    return Job(
        id=JobId(record["id"]),
        model=record["model"],
        version=record["version"],
        payload=_payload(record, "payload") or Payload(),
        priority=Priority(record["priority"]),
        sla=SlaTier(record["sla"]),
        tokens=int(record["tokens"]),
        created_at=float(record["created_at"]),
        deadline_at=float(record["deadline_at"]),
        state=JobState(record["state"]),
        tenant=record["tenant"],
        account=record.get("account", ""),
        announce=bool(record.get("announce")),
        callback_url=record.get("callback_url"),
        metered=bool(record.get("metered")),
        metadata=dict(record.get("metadata") or {}),
        sends=int(record["sends"]),
        # Absent also from records of before 2026-11-23, when each send counted.
        resends=int(record.get("resends", 0)),
        sent_at=float(record["sent_at"]),
        losses=int(record["losses"]),
        requires=requires_of(record),
        items=int(record.get("items", 1)),
        lease=_lease(record),
        started_at=_optional_float(record, "started_at"),
        finished_at=_optional_float(record, "finished_at"),
        result=_payload(record, "result"),
        usage=_usage(record),
        failure=_failure(record),
        served=_served(record),
    )


def _payload(record: Mapping[str, Any], key: str) -> Payload | None:
    inline, blob_key = record.get(key), record.get(f"{key}_key")
    return None if inline is None and blob_key is None else Payload(inline, blob_key)


def requires_of(record: Mapping[str, Any]) -> Extensions:
    """What the job of a record requires of engines."""
    named = record.get("requires")
    return frozenset(Extension(each) for each in named.split(",")) if named else NO_EXTENSIONS


def _optional_float(record: Mapping[str, Any], key: str) -> float | None:
    value = record.get(key)
    return None if value is None else float(value)


def _lease(record: Mapping[str, Any]) -> Lease | None:
    owner = record.get("lease_owner")
    return None if owner is None else Lease(owner, float(record["lease_expires_at"]))


def _usage(record: Mapping[str, Any]) -> Usage | None:
    prompt = record.get("prompt_tokens")
    if prompt is None:
        return None
    cached = record.get("cached_tokens")
    return Usage(
        int(prompt), int(record["completion_tokens"]), None if cached is None else int(cached)
    )


def _failure(record: Mapping[str, Any]) -> Failure | None:
    code = record.get("failure_code")
    if code is None:
        return None
    return Failure(code, record["failure_message"], record.get("failure_param"))


def _served(record: Mapping[str, Any]) -> Served | None:
    pool = record.get("served_pool")
    if pool is None:
        return None
    return Served(
        pool,
        record["served_accelerator"],
        int(record["served_batch_size"]),
        record.get("served_worker", ""),
        record.get("served_fallback", ""),
        *(float(record.get(f"served_{key}", 0.0)) for key in _RECEIPT),
    )


def job_to_json(job: Job) -> str:
    """A job's record as JSON text."""
    return json.dumps(job_to_record(job), ensure_ascii=False, separators=(",", ":"))


def job_from_json(text: str | bytes) -> Job:
    """The job of a JSON text that `job_to_json` wrote."""
    return job_from_record(json.loads(text))
