"""Where webhooks go and what became of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from synapse.domain.delivery import Answer, Delivery
from synapse.domain.webhook import Endpoint
from synapse.domain.webhook_url import WebhookUrl


class EndpointStore(Protocol):
    """The endpoints of tenants, with the secrets that sign. All of it may raise Unavailable."""

    async def create(self, endpoint: Endpoint) -> bool:
        """Record a new endpoint durably before returning; False if the tenant has that id."""
        ...

    async def get(self, tenant: str, endpoint_id: str) -> Endpoint | None:
        """The tenant's endpoint of that id."""
        ...

    async def of(self, tenant: str) -> Sequence[Endpoint]:
        """All endpoints of a tenant, by their ids."""
        ...

    async def replace(self, endpoint: Endpoint) -> bool:
        """Write a changed endpoint if the one before `endpoint.revision` is there."""
        ...

    async def delete(self, tenant: str, endpoint_id: str) -> bool:
        """Forget an endpoint; False if there is none."""
        ...


class DeliveryStore(Protocol):
    """What is to be delivered, and what came of it. All of it may raise Unavailable."""

    async def add(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """Record deliveries durably; those that are there already stay as they are.

        Returns those of them that are still to be made, as they stand.
        """
        ...

    async def get(self, tenant: str, subject: str, delivery_id: str) -> Delivery | None:
        """A delivery of an event of that job or batch."""
        ...

    async def of(self, tenant: str, subject: str) -> Sequence[Delivery]:
        """All deliveries of events of a job or batch, by their ids."""
        ...

    async def save(self, delivery: Delivery) -> bool:
        """Write what came of an attempt, unless it has ended or was tried more often meanwhile."""
        ...


class DeliveryQueue(Protocol):
    """Has deliveries made, at least once each."""

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        """Have them made as soon as may be.

        Raises:
            Unavailable: not all could be queued.
        """
        ...


class Sender(Protocol):
    """Posts to receivers that are not to be trusted."""

    async def post(
        self, tenant: str, url: WebhookUrl, headers: Mapping[str, str], body: str
    ) -> Answer:
        """One attempt for a tenant, which takes ten seconds at most once it has begun.

        Raises:
            Unavailable: it was not begun, for want of means here; nothing else.
        """
        ...
