"""Events that are told to whoever asked to be told, signed, and tried again until they are taken.

The signature and its headers are those of Standard Webhooks (standardwebhooks.com), the shape of
an event is that of OpenAI's webhooks. An event's id follows from what ended: whoever tells of it
twice, after a crash or in a retry, tells the same event.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from synapse.domain.file_batch import FileBatch, FileBatchStatus
from synapse.domain.job import Job

SECRET_PREFIX = "whsec_"
SECRET_BYTES = 32
ROTATED_SECRET_S = 86_400.0
"""How long the secret before the last one still signs."""

MAX_SECRETS = 4
"""That sign side by side, however often a secret is replaced within a day."""

MAX_ENDPOINTS = 16
CALLBACKS = "callbacks"
"""The id of a tenant's endpoint that has no URL: its secret signs what goes to `callback_url`s."""


class EventType(StrEnum):
    """What can be told."""

    JOB_COMPLETED = "job.completed"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    JOB_EXPIRED = "job.expired"
    BATCH_COMPLETED = "batch.completed"
    BATCH_FAILED = "batch.failed"
    BATCH_EXPIRED = "batch.expired"
    BATCH_CANCELLED = "batch.cancelled"

    @property
    def is_of_job(self) -> bool:
        """Whether a job ended, and not a file batch."""
        return self.value.startswith("job.")


@dataclass(frozen=True, slots=True)
class Event:
    """The end of a job or a file batch. `callback_url` is the job's own, beside the endpoints'."""

    id: str
    type: EventType
    created_at: float
    tenant: str
    subject: str
    callback_url: str | None = field(default=None, repr=False)

    def body(self) -> str:
        """The JSON that is sent."""
        kind = "job" if self.type.is_of_job else "batch"
        status = self.type.value.partition(".")[2]
        document = {
            "id": self.id,
            "object": "event",
            "created_at": int(self.created_at),
            "type": self.type.value,
            "data": {"id": self.subject, "object": kind, "status": status},
        }
        return json.dumps(document, separators=(",", ":"))


def event_of_job(job: Job) -> Event:
    """What is told of a job that has ended.

    Raises:
        ValueError: it has not.
    """
    if not job.state.is_final:
        raise ValueError(f"the job {job.id} has not ended")
    kind = EventType(f"job.{job.state.value.lower()}")
    at = job.created_at if job.finished_at is None else job.finished_at
    return Event(event_id(job.id, kind), kind, at, job.tenant, job.id, job.callback_url)


_BATCH_ENDS = {
    FileBatchStatus.COMPLETED: EventType.BATCH_COMPLETED,
    FileBatchStatus.FAILED: EventType.BATCH_FAILED,
    FileBatchStatus.EXPIRED: EventType.BATCH_EXPIRED,
    FileBatchStatus.CANCELLED: EventType.BATCH_CANCELLED,
}


def event_of_batch(batch: FileBatch) -> Event:
    """What is told of a file batch that has ended.

    Raises:
        ValueError: it has not.
    """
    kind = _BATCH_ENDS.get(batch.status)
    if kind is None:
        raise ValueError(f"the batch {batch.id} has not ended")
    at = batch.entered.get(batch.status, batch.created_at)
    return Event(event_id(batch.id, kind), kind, at, batch.tenant, batch.id)


def event_id(subject: str, kind: EventType) -> str:
    """The id of an event: the same for the same end, and no hint at the ids of others."""
    return f"evt_{hashlib.sha256(f'{kind.value}:{subject}'.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Secret:
    """A signing secret, `whsec_<base64>`; it signs until `expires_at`, or for good."""

    text: str = field(repr=False)
    expires_at: float | None = None

    def key(self) -> bytes:
        """The bytes that sign."""
        return base64.b64decode(self.text.removeprefix(SECRET_PREFIX))


def secret_of(random: bytes) -> str:
    """The text of a secret of these bytes, which are random."""
    if len(random) != SECRET_BYTES:
        raise ValueError(f"a secret is of {SECRET_BYTES} bytes")
    return SECRET_PREFIX + base64.b64encode(random).decode()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a tenant's events of certain types are sent, and what signs them, the latest first.

    `revision` counts the changes: each is conditional on the one before.
    """

    id: str
    tenant: str
    url: str = field(repr=False)
    events: frozenset[EventType]
    secrets: tuple[Secret, ...]
    created_at: float
    revision: int = 0

    def wants(self, kind: EventType) -> bool:
        """Whether it is told of events of that type."""
        return kind in self.events

    def signing(self, now: float) -> Sequence[Secret]:
        """The secrets that sign at that time."""
        return [s for s in self.secrets if s.expires_at is None or s.expires_at > now]

    def rotated(self, text: str, now: float) -> Endpoint:
        """The endpoint with a new secret; the one before signs beside it for a day."""
        until = now + ROTATED_SECRET_S
        before = tuple(
            Secret(s.text, until if s.expires_at is None else s.expires_at)
            for s in self.signing(now)
        )
        secrets = (Secret(text), *before)[:MAX_SECRETS]
        return replace(self, secrets=secrets, revision=self.revision + 1)


def signature(key: bytes, message_id: str, timestamp: int, body: str) -> str:
    """One signature of Standard Webhooks, version 1."""
    content = f"{message_id}.{timestamp}.{body}".encode()
    digest = hmac.new(key, content, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(digest).decode()}"


def signed_headers(
    secrets: Sequence[Secret], message_id: str, now: float, body: str
) -> dict[str, str]:
    """The headers that prove who sent a body, and when; a signature of each secret."""
    timestamp = int(now)
    signatures = [signature(secret.key(), message_id, timestamp, body) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(signatures),
    }
