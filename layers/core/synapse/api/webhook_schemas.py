"""Webhooks on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from synapse.api.schemas import Request
from synapse.api.wire import WireModel

EventName = Literal[
    "job.completed",
    "job.failed",
    "job.cancelled",
    "job.expired",
    "batch.completed",
    "batch.failed",
    "batch.expired",
    "batch.cancelled",
]


class WebhookRequest(Request):
    """Where to send which events."""

    url: str = Field(max_length=2048, description="https, to a public address, port 443 or 8443.")
    events: Annotated[list[EventName], Field(min_length=1, max_length=16)] = Field(
        description="job.* tells of /async-infer and /api/inference, batch.* of /v1/batches."
    )


class WebhookBody(WireModel):
    """A webhook; `url` is null for `callbacks`, whose secret signs what goes to a callback_url."""

    id: str
    object: Literal["webhook"] = "webhook"
    url: str | None
    events: list[str]
    created_at: float


class NewWebhookBody(WebhookBody):
    """A webhook with its new secret, which is shown once."""

    secret: str


class WebhookList(WireModel):
    """The tenant's webhooks."""

    object: Literal["list"] = "list"
    data: list[WebhookBody]


class WebhookDeleted(WireModel):
    """A webhook that is no more."""

    id: str
    object: Literal["webhook"] = "webhook"
    deleted: Literal[True] = True


class DeliveryBody(WireModel):
    """An event on its way to one URL: pending, delivered or given_up.

    `last_status_code` is what the receiver answered last, null if it did not; then `last_error`
    says why.
    """

    id: str
    event: str
    type: str
    webhook: str
    url: str
    status: str
    attempts: int
    last_status_code: int | None
    last_error: str | None
    last_attempt_at: float | None
    next_attempt_at: float | None
    created_at: float


class DeliveryList(WireModel):
    """Deliveries of the events of a job or a batch."""

    object: Literal["list"] = "list"
    data: list[DeliveryBody]
