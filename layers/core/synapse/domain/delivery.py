"""Events on their way to receivers: when they are tried, and when they are given up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from http import HTTPStatus

from synapse.domain.webhook import Event, EventType, Secret, signed_headers

RETENTION_S = 7 * 86_400.0
"""How long it can be seen what became of a delivery."""

DELAYS_S = (5.0, 30.0, 120.0, 600.0, 3600.0, 3 * 3600.0, 6 * 3600.0, 9 * 3600.0)
"""Before the second attempt, the third…; given up after the last, 15 to 23 h after the event."""

JITTER = 0.2
MAX_DELAY_S = 11 * 3600.0
"""The longest that a receiver can put off an attempt by Retry-After."""

MAX_AGE_S = 86_400.0
"""No attempt is made later than this after the event."""

TIMEOUT_S = 10.0

Place = tuple[str, str]
"""A tenant and a host of it."""


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

    `due_at` is when the next attempt may be made; None once it has ended.
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

    @property
    def place(self) -> Place:
        """What attempts are shared out by: a receiver that is down holds up only its own."""
        return self.tenant, self.host

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
        due_at = now + max(delay_s, min(answer.retry_after_s or 0.0, MAX_DELAY_S))
        if due_at >= self.created_at + MAX_AGE_S:
            return replace(tried, state=DeliveryState.GIVEN_UP, due_at=None)
        return replace(tried, due_at=due_at)

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
