"""Events that are told to whoever asked to be told, signed, and tried again until they are taken.

The signature and its headers are those of Standard Webhooks (standardwebhooks.com), the shape of
an event is that of OpenAI's webhooks. An event's id follows from what ended: whoever tells of it
twice, after a crash or in a retry, tells the same event.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http import HTTPStatus

from synapse.domain.file_batch import FileBatch, FileBatchStatus
from synapse.domain.job import Job

SECRET_PREFIX = "whsec_"
SECRET_BYTES = 32
ROTATED_SECRET_S = 86_400.0
"""How long the secret before the last one still signs."""

MAX_ENDPOINTS = 16
RETENTION_S = 7 * 86_400.0
"""How long it can be seen what became of a delivery."""

CALLBACKS = "callbacks"
"""The id of a tenant's endpoint that has no URL: its secret signs what goes to `callback_url`s."""

DELAYS_S = (5.0, 30.0, 120.0, 600.0, 3600.0, 3 * 3600.0, 6 * 3600.0, 9 * 3600.0)
"""Before the second attempt, the third…; a delivery is given up after the last, 19 h (15 to 23)
after the event."""

JITTER = 0.2
MAX_DELAY_S = 11 * 3600.0
"""The longest that a receiver can put off an attempt by Retry-After; SQS hides no message for
more than twelve hours."""

TIMEOUT_S = 10.0


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
        return replace(self, secrets=(Secret(text), *before), revision=self.revision + 1)


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


def is_secret(text: str) -> bool:
    """Whether a text has the form of a secret."""
    try:
        encoded = text.removeprefix(SECRET_PREFIX)
        decoded = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith(SECRET_PREFIX) and len(decoded) == SECRET_BYTES


class DeliveryState(StrEnum):
    """Where a delivery is; the last two are final."""

    PENDING = "pending"
    DELIVERED = "delivered"
    GIVEN_UP = "given_up"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one attempt: a status, or why there is none; `retry_after_s` if it was said."""

    status: int | None = None
    error: str = ""
    retry_after_s: float | None = None

    @property
    def is_success(self) -> bool:
        """Whether the receiver has taken it."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def is_refused_for_good(self) -> bool:
        """Whether the receiver wants no more of it."""
        return self.status == HTTPStatus.GONE


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event on its way to one endpoint, and what came of the attempts so far.

    `due_at` is when the next attempt may be made; None once it has ended. `host` is what attempts
    are shared out by, so that a receiver that is down does not hold up the others.
    """

    id: str
    tenant: str
    event_id: str
    type: EventType
    subject: str
    endpoint_id: str
    url: str = field(repr=False)
    host: str
    body: str = field(repr=False)
    created_at: float
    due_at: float | None
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    last_status: int | None = None
    last_error: str = ""
    last_attempt_at: float | None = None

    def after(self, answer: Answer, now: float, uniform: float) -> Delivery:
        """The delivery after an attempt; `uniform` is a draw from [0, 1)."""
        tried = replace(
            self,
            attempts=self.attempts + 1,
            last_status=answer.status,
            last_error=answer.error,
            last_attempt_at=now,
        )
        if answer.is_success:
            return replace(tried, state=DeliveryState.DELIVERED, due_at=None)
        delay_s = None if answer.is_refused_for_good else delay_s_after(tried.attempts, uniform)
        if delay_s is None:
            return replace(tried, state=DeliveryState.GIVEN_UP, due_at=None)
        asked_s = min(answer.retry_after_s or 0.0, MAX_DELAY_S)
        return replace(tried, due_at=now + max(delay_s, asked_s))

    def given_up(self, reason: str) -> Delivery:
        """The delivery that can never be made."""
        return replace(self, state=DeliveryState.GIVEN_UP, due_at=None, last_error=reason)


def delay_s_after(attempts: int, uniform: float) -> float | None:
    """The wait after so many failed attempts (from 1); None if there were enough of them."""
    if attempts > len(DELAYS_S):
        return None
    return DELAYS_S[attempts - 1] * (1.0 - JITTER + 2.0 * JITTER * uniform)


def delivery_of(event: Event, endpoint_id: str, url: str, host: str, now: float) -> Delivery:
    """The delivery of an event to an endpoint; the same one, however often it is made."""
    return Delivery(
        id=f"{event.id}.{endpoint_id}",
        tenant=event.tenant,
        event_id=event.id,
        type=event.type,
        subject=event.subject,
        endpoint_id=endpoint_id,
        url=url,
        host=host,
        body=event.body(),
        created_at=now,
        due_at=now,
    )


def headers_of(delivery: Delivery, secrets: Sequence[Secret], now: float) -> Mapping[str, str]:
    """The headers of one attempt: the same id each time, a timestamp of its own."""
    signed = signed_headers(secrets, delivery.event_id, now, delivery.body)
    return {"content-type": "application/json", "user-agent": "Synapse-Webhooks/1", **signed}
