"""What a request for a job becomes: the job, the message about it, and what it needs of a pool."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from synapse.application.payloads import encode_input
from synapse.domain.access import ANYONE, Principal
from synapse.domain.batching import JobMessage
from synapse.domain.inference import ModelInput
from synapse.domain.job import Job, JobId, Payload, Priority, SlaTier
from synapse.domain.model import ModelSpec, Task
from synapse.domain.routing import Need
from synapse.ports import Idempotency

BYTES_PER_TOKEN = 4
"""Rule of thumb for the token budget of a batch; usage is what the engine counts."""

JOB_TIER = SlaTier.BRONZE
"""Of jobs that name none."""


@dataclass(frozen=True, slots=True)
class SubmitJob:
    """A caller's request for one job; `length_at` is where it says how long its answer may be."""

    model: str
    input: ModelInput
    priority: Priority = Priority.NORMAL
    sla: SlaTier = JOB_TIER
    timeout_s: float | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    caller: Principal = ANYONE
    idempotency_key: str | None = None
    callback_url: str | None = None
    length_at: str = "parameters.max_tokens"


def new_job(
    command: SubmitJob,
    spec: ModelSpec,
    job_id: JobId,
    now: float,
    deadline_at: float,
) -> Job:
    """The job that a command asks for; its input is to be stowed (`stowed`) and it recorded."""
    return Job(
        id=job_id,
        model=spec.name,
        version=spec.version,
        payload=Payload(inline=encode_input(command.input)),
        priority=command.priority,
        sla=command.sla,
        tokens=_token_estimate(command.input, spec),
        requires=command.input.requires,
        items=command.input.samples,
        created_at=now,
        deadline_at=deadline_at,
        tenant=command.caller.tenant,
        account=command.caller.account,
        metadata=command.metadata,
        sent_at=now,
    )


def message_of(job: Job) -> JobMessage:
    """The message that tells a queue of a job."""
    return JobMessage(
        job_id=job.id,
        model=job.model,
        version=job.version,
        priority=job.priority,
        tokens=job.tokens,
        sent_at=job.sent_at,
        deadline_at=job.deadline_at,
        losses=job.losses,
        sla=job.sla,
        requires=job.requires,
        tenant=job.tenant,
        items=job.items,
    )


def _token_estimate(value: ModelInput, spec: ModelSpec) -> int:
    asked = value.parameters.get("max_tokens")
    output = asked if isinstance(asked, int) else spec.max_output_tokens
    return min(spec.context_tokens, value.size_bytes // BYTES_PER_TOKEN + 1 + output)


def job_need(command: SubmitJob, spec: ModelSpec) -> Need:
    """What a job needs of a pool, its size estimated."""
    prompt = min(spec.context_tokens, command.input.size_bytes // BYTES_PER_TOKEN + 1)
    generates = spec.task is Task.GENERATE
    output = _token_estimate(command.input, spec) - prompt if generates else 0
    return Need(
        command.sla,
        items=command.input.samples,
        prompt_tokens=prompt,
        output_tokens=max(0, output),
        first_token_only=generates,
        requires=command.input.requires,
    )


def idempotency_of(command: SubmitJob) -> Idempotency | None:
    """The key of a command that has one, and what tells it from another with the same key.

    Keys are an account's own; records know them by their tenant.
    """
    if command.idempotency_key is None:
        return None
    body = [
        command.model,
        encode_input(command.input),
        command.priority,
        command.sla,
        command.timeout_s,
        sorted(command.metadata.items()),
    ]
    if command.callback_url is not None:
        body.append(command.callback_url)
    fingerprint = hashlib.sha256(json.dumps(body).encode()).hexdigest()
    key, account = command.idempotency_key, command.caller.account
    return Idempotency(json.dumps([account, key]) if account else key, fingerprint)
