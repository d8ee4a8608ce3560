"""What travels between the parts as JSON: queue messages, the batcher's and the runners' events.

What arrives is checked and refused with a ValueError that names the field and never repeats the
body. Job records are in `synapse.adapters.records`, and named here too.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from synapse.adapters.records import (
    Record,
    job_from_json,
    job_from_record,
    job_to_json,
    job_to_record,
    outcome_to_record,
)
from synapse.domain.access import DEFAULT_TENANT
from synapse.domain.batching import Batch, JobMessage
from synapse.domain.extension import Extension, Extensions
from synapse.domain.file_batch import FileBatchId
from synapse.domain.job import Failure, JobId, Priority, SlaTier
from synapse.ports import BatchOrder

__all__ = [
    "GiveBackOrder",
    "Record",
    "file_batch_from_event",
    "file_batch_to_event",
    "give_back_order_from_event",
    "job_from_json",
    "job_from_record",
    "job_to_json",
    "job_to_record",
    "message_from_json",
    "message_to_json",
    "order_to_event",
    "outcome_to_record",
    "progress_to_event",
    "runner_order_from_event",
]


def message_to_json(message: JobMessage) -> str:
    """The body of a queue message."""
    return _dumps(
        {
            "jobId": message.job_id,
            "model": message.model,
            "version": message.version,
            "priority": message.priority.value,
            "tokens": message.tokens,
            "sentAt": message.sent_at,
            "deadlineAt": message.deadline_at,
            "losses": message.losses,
            "sla": message.sla,
            "requires": sorted(message.requires),
            "tenant": message.tenant,
            "items": message.items,
        }
    )


def message_from_json(text: str | bytes) -> JobMessage:
    """The message of a body.

    Raises:
        ValueError: it is none; the text says why, without repeating the body.
    """
    body = _object("message", _loads("message", text))
    priority = _text(body, "priority")
    if priority not in set(Priority):
        raise ValueError(f"message: priority: must be one of {', '.join(Priority)}")
    return JobMessage(
        job_id=JobId(_text(body, "jobId")),
        model=_text(body, "model"),
        version=_text(body, "version"),
        priority=Priority(priority),
        tokens=int(_number(body, "tokens")),
        sent_at=_number(body, "sentAt"),
        deadline_at=_number(body, "deadlineAt"),
        losses=int(_number(body, "losses")) if "losses" in body else 0,
        sla=_sla(body),
        requires=_requires(body),
        tenant=_text(body, "tenant") if "tenant" in body else DEFAULT_TENANT,
        items=int(_number(body, "items")) if "items" in body else 1,
    )


def order_to_event(order: BatchOrder) -> dict[str, Any]:
    """A batch as the state machine takes it (`statemachines/batcher.asl.json`)."""
    batch = order.batch
    return {
        "batchId": batch.id,
        "model": batch.model,
        "version": batch.version,
        "jobIds": list(batch.job_ids),
        "items": list(batch.items),
        "tokens": batch.tokens,
        "sla": batch.sla,
        "fallback": batch.fallback,
        "pools": [{"name": pool.name, "runnerArn": pool.runner} for pool in order.pools],
    }


def runner_order_from_event(event: object) -> tuple[Batch, str]:
    """The batch and the name of the pool that a runner is invoked with.

    Raises:
        ValueError: a field is missing or malformed.
    """
    body = _object("event", event)
    return _batch(body), _text(body, "pool")


@dataclass(frozen=True, slots=True)
class GiveBackOrder:
    """A batch that no pool could run; `lost` if a worker may have gone down with it."""

    batch_id: str
    job_ids: tuple[JobId, ...]
    failure: Failure
    lost: bool


def give_back_order_from_event(event: object) -> GiveBackOrder:
    """What the state machine hands over when every pool has failed.

    Raises:
        ValueError: a field is missing or malformed.
    """
    body = _object("event", event)
    error = _object("error", body.get("error"))
    name, cause = _text(error, "Error"), error.get("Cause")
    code, is_ours, lost = _ERRORS.get(name, ("internal_error", False, True))
    message = _error_message(cause) if is_ours else ""
    return GiveBackOrder(
        batch_id=_text(body, "batchId"),
        job_ids=_job_ids(body),
        failure=Failure(code, message or f"the batch could not be run ({name or 'unknown error'})"),
        lost=lost,
    )


def file_batch_to_event(tenant: str, batch_id: FileBatchId) -> dict[str, Any]:
    """A file batch as its state machine takes it (`statemachines/file_batch.asl.json`)."""
    return {"tenant": tenant, "batchId": batch_id}


def file_batch_from_event(event: object) -> tuple[str, FileBatchId]:
    """Tenant and id of a `file_batch_to_event`.

    Raises:
        ValueError: a field is missing or malformed.
    """
    body = _object("event", event)
    return _text(body, "tenant"), FileBatchId(_text(body, "batchId"))


def progress_to_event(*, done: bool, wait_s: float) -> dict[str, Any]:
    """What a step tells the state machine, which waits whole seconds and one at least."""
    return {"done": done, "waitSeconds": max(1, math.ceil(wait_s))}


# What Lambda calls an invocation that it refused: none of our code ran, and it may later.
_REFUSED = (
    *("TooManyRequestsException", "ServiceException", "AWSLambdaException", "SdkClientException"),
    *("ResourceNotFoundException", "ResourceNotReadyException", "ResourceConflictException"),
    *("CodeArtifactUserPendingException", "ENINotReadyException", "ENILimitReachedException"),
    *("SubnetIPAddressLimitReachedException", "EC2ThrottledException", "EC2UnexpectedException"),
)

# Error's name → stable code, whether its text is ours (so public), whether work was begun.
_ERRORS = {
    "EngineUnavailable": ("engine_unavailable", True, False),
    "EngineFull": ("engine_unavailable", True, False),
    "EngineLost": ("worker_lost", True, True),
    "Lambda.Unknown": ("worker_lost", False, True),
    "Runtime.ExitError": ("worker_lost", False, True),
    "Sandbox.Timedout": ("worker_lost", False, True),
    "States.Timeout": ("worker_lost", False, True),
    **{f"Lambda.{name}": ("engine_unavailable", False, False) for name in _REFUSED},
}


def _error_message(cause: object) -> str:
    """The message of a Lambda error, which Step Functions passes as JSON text."""
    try:
        value = json.loads(cause) if isinstance(cause, str) else cause
    except ValueError:
        return ""
    message = value.get("errorMessage") if isinstance(value, dict) else None
    return message if isinstance(message, str) else ""


def _batch(body: Mapping[str, Any]) -> Batch:
    tokens = int(_number(body, "tokens")) if "tokens" in body else 0
    model, version = _text(body, "model"), _text(body, "version")
    fallback = _text(body, "fallback") if body.get("fallback") else ""
    batch_id, job_ids = _text(body, "batchId"), _job_ids(body)
    items = _items(body, len(job_ids))
    return Batch(batch_id, model, version, job_ids, tokens, _sla(body), fallback, items)


def _sla(body: Mapping[str, Any]) -> SlaTier:
    """The tier; messages and batches from before there were any are bronze, as jobs are."""
    sla = _text(body, "sla") if "sla" in body else SlaTier.BRONZE
    if sla not in set(SlaTier):
        raise ValueError(f"sla: must be one of {', '.join(SlaTier)}")
    return SlaTier(sla)


def _requires(body: Mapping[str, Any]) -> Extensions:
    """What a job requires of engines; nothing in messages from before there was any of it."""
    named = body.get("requires", [])
    if not isinstance(named, list) or not all(each in list(Extension) for each in named):
        raise ValueError(f"requires: expected a list of {', '.join(Extension)}")
    return frozenset(Extension(each) for each in named)


def _job_ids(body: Mapping[str, Any]) -> tuple[JobId, ...]:
    ids = body.get("jobIds")
    if not isinstance(ids, list) or not all(isinstance(job_id, str) and job_id for job_id in ids):
        raise ValueError(f"jobIds: expected a list of ids, got {_kind(ids)}")
    return tuple(JobId(job_id) for job_id in ids)


def _items(body: Mapping[str, Any], jobs: int) -> tuple[int, ...]:
    """Those of each job; none in batches from before they told of any."""
    items = body.get("items", [])
    if not isinstance(items, list) or not all(type(each) is int and each > 0 for each in items):
        raise ValueError("items: expected a list of numbers above 0")
    if items and len(items) != jobs:
        raise ValueError(f"items: expected one of each of the {jobs} jobs, got {len(items)}")
    return tuple(items)


def _dumps(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _loads(what: str, text: str | bytes) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{what}: not valid JSON") from error
    return value


def _object(what: str, value: object) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what}: expected an object, got {_kind(value)}")
    return value


def _text(body: Mapping[str, Any], key: str) -> str:
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key}: expected a non-empty text, got {_kind(value)}")
    return value


def _number(body: Mapping[str, Any], key: str) -> float:
    value = body.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key}: expected a number, got {_kind(value)}")
    if not math.isfinite(value):
        raise ValueError(f"{key}: expected a finite number")
    return value


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
