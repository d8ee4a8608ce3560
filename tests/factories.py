"""Builders of domain objects with sensible defaults; a test names only what it is about."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable
from typing import Any

from synapse.domain.batching import Batch, BatchPolicy, JobMessage
from synapse.domain.file_batch import FileBatch, FileBatchId
from synapse.domain.job import Job, JobId, JobState, Lease, Outcome, Payload, Priority, SlaTier
from synapse.domain.model import ModelSpec, ServiceSample, Task, WorkerHealth
from synapse.domain.pool import Pool
from synapse.domain.worker import CacheLevel, Worker, WorkerModel, WorkerState
from synapse.ports import BatchOrder

NOW = 1_700_000_000.25
"""The moment at which the tests' clocks start."""


def an_id(prefix: str = "") -> str:
    """An id that no other test has."""
    return f"{prefix}{uuid.uuid4().hex}"


def counted_ids(prefix: str = "b") -> Callable[[], str]:
    """A source of ids that are known beforehand (b1, b2, …)."""
    numbers = itertools.count(1)
    return lambda: f"{prefix}{next(numbers)}"


def a_job(**changes: Any) -> Job:
    """A job that was accepted at NOW (or at `created_at`) and has an hour."""
    created_at = changes.get("created_at", NOW)
    fields: dict[str, Any] = {
        "id": JobId(an_id("job-")),
        "model": "echo",
        "version": "1",
        "payload": Payload(inline='{"prompt":"The future of AI is"}'),
        "priority": Priority.NORMAL,
        "sla": SlaTier.BRONZE,
        "tokens": 32,
        "created_at": created_at,
        "deadline_at": created_at + 3600.0,
        "sent_at": created_at,
    }
    return Job(**{**fields, **changes})


def a_running_job(owner: str = "batch-1", lease_s: float = 600.0, **changes: Any) -> Job:
    """A job that `owner` claimed as soon as it was accepted."""
    job = a_job(**changes)
    return job.claimed(Lease(owner, job.created_at + lease_s), job.created_at)


def a_lease(owner: str = "batch-1", expires_at: float = NOW + 600.0) -> Lease:
    """A lease of ten minutes from NOW."""
    return Lease(owner, expires_at)


def an_outcome(job_id: JobId, state: JobState = JobState.COMPLETED, **changes: Any) -> Outcome:
    """The end of a job; a completed one has a result."""
    completed = state is JobState.COMPLETED
    fields: dict[str, Any] = {"result": Payload(inline='{"text":"bright"}')} if completed else {}
    return Outcome(job_id, state, **{**fields, **changes})


def a_message(**changes: Any) -> JobMessage:
    """The message of a job sent at NOW."""
    fields: dict[str, Any] = {
        "job_id": JobId(an_id("job-")),
        "model": "echo",
        "version": "1",
        "priority": Priority.NORMAL,
        "tokens": 32,
        "sent_at": NOW,
        "deadline_at": NOW + 3600.0,
    }
    return JobMessage(**{**fields, **changes})


def a_model(name: str = "echo", **changes: Any) -> ModelSpec:
    """A text-in, text-out model."""
    fields: dict[str, Any] = {
        "name": name,
        "version": "1",
        "task": Task.TEXT,
        "context_tokens": 4096,
        "max_output_tokens": 1024,
        "slots": 8,
        "batch": BatchPolicy(max_items=32, max_tokens=16_384, max_wait_ms=5.0),
    }
    return ModelSpec(**{**fields, **changes})


def a_chat_model(name: str = "smollm2-135m-instruct", **changes: Any) -> ModelSpec:
    """A model that generates text and has a chat template."""
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    fields: dict[str, Any] = {"task": Task.GENERATE, "chat_template": template}
    return a_model(name, **{**fields, **changes})


def a_pool(name: str = "cpu", **changes: Any) -> Pool:
    """A pool of CPU workers."""
    fields: dict[str, Any] = {
        "accelerator": "cpu",
        "endpoint": "127.0.0.1:8001",
        "runner": f"arn:aws:lambda:us-east-1:123456789012:function:run-{name}",
        "price_per_hour_usd": 0.1,
    }
    return Pool(name, **{**fields, **changes})


def a_worker(worker_id: str = "w-1", pool: str = "cpu", **changes: Any) -> Worker:
    """A worker that has echo, beat at NOW and lives for 15 s from then."""
    fields: dict[str, Any] = {
        "accelerator": "cpu",
        "state": WorkerState.READY,
        "endpoint": "127.0.0.1:8001",
        "models": (WorkerModel("echo", "1", CacheLevel.GPU_RESIDENT),),
        "started_at": NOW - 60.0,
        "beat_at": NOW,
        "lease_until": NOW + 15.0,
    }
    return Worker(worker_id, pool, **{**fields, **changes})


def a_batch(*job_ids: str, **changes: Any) -> Batch:
    """A batch of the named jobs, or of two new ones."""
    ids = tuple(JobId(job_id) for job_id in job_ids or (an_id("job-"), an_id("job-")))
    fields: dict[str, Any] = {
        "id": an_id("batch-"),
        "model": "echo",
        "version": "1",
        "job_ids": ids,
        "tokens": 32 * len(ids),
    }
    return Batch(**{**fields, **changes})


def an_order(*job_ids: str, pools: tuple[Pool, ...] = (), **changes: Any) -> BatchOrder:
    """An order to run a batch, on the CPU pool unless others are named."""
    return BatchOrder(a_batch(*job_ids, **changes), pools or (a_pool(),))


def a_sample(
    items: int = 10, busy_s: float = 2.0, model: str = "echo", pool: str = "cpu"
) -> ServiceSample:
    """Ten items in two seconds."""
    return ServiceSample(model, pool, items, busy_s)


def a_health(pool: str = "cpu", model: str = "echo", **changes: Any) -> WorkerHealth:
    """A worker that was well at NOW."""
    fields: dict[str, Any] = {"healthy": True, "latency_ms": 1.5, "checked_at": NOW}
    return WorkerHealth(model, pool, **{**fields, **changes})


def a_file_batch(**changes: Any) -> FileBatch:
    """A batch of completions that was accepted at NOW and has a day."""
    fields: dict[str, Any] = {
        "id": FileBatchId(an_id("batch_")),
        "endpoint": "/v1/completions",
        "input_file_id": "file-1",
        "input_key": "files/1",
        "completion_window": "24h",
        "window_s": 86_400.0,
        "created_at": NOW,
    }
    return FileBatch(**{**fields, **changes})
