"""Working in-memory stand-ins for what webhooks need of the world."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from synapse.domain.delivery import Answer, Delivery, DeliveryState
from synapse.domain.webhook import Endpoint
from synapse.domain.webhook_url import WebhookUrl


class MemoryEndpointStore:
    """Endpoints in a dict."""

    def __init__(self) -> None:
        self._endpoints: dict[tuple[str, str], Endpoint] = {}

    async def create(self, endpoint: Endpoint) -> bool:
        key = (endpoint.tenant, endpoint.id)
        if key in self._endpoints:
            return False
        self._endpoints[key] = endpoint
        return True

    async def get(self, tenant: str, endpoint_id: str) -> Endpoint | None:
        return self._endpoints.get((tenant, endpoint_id))

    async def of(self, tenant: str) -> Sequence[Endpoint]:
        return [self._endpoints[key] for key in sorted(self._endpoints) if key[0] == tenant]

    async def replace(self, endpoint: Endpoint) -> bool:
        known = self._endpoints.get((endpoint.tenant, endpoint.id))
        if known is None or known.revision != endpoint.revision - 1:
            return False
        self._endpoints[endpoint.tenant, endpoint.id] = endpoint
        return True

    async def delete(self, tenant: str, endpoint_id: str) -> bool:
        return self._endpoints.pop((tenant, endpoint_id), None) is not None


class MemoryDeliveryStore:
    """Deliveries in a dict."""

    def __init__(self) -> None:
        self.deliveries: dict[str, Delivery] = {}

    async def add(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        for each in deliveries:
            self.deliveries.setdefault(each.id, each)
        stand = [self.deliveries[each] for each in sorted({d.id for d in deliveries})]
        return [each for each in stand if each.state is DeliveryState.PENDING]

    async def get(self, tenant: str, subject: str, delivery_id: str) -> Delivery | None:
        found = self.deliveries.get(delivery_id)
        return found if found and (found.tenant, found.subject) == (tenant, subject) else None

    async def of(self, tenant: str, subject: str) -> Sequence[Delivery]:
        found = (self.deliveries[each] for each in sorted(self.deliveries))
        return [each for each in found if (each.tenant, each.subject) == (tenant, subject)]

    async def save(self, delivery: Delivery) -> bool:
        known = self.deliveries.get(delivery.id)
        if known is None or known.state is not DeliveryState.PENDING:
            return False
        if known.attempts > delivery.attempts:
            return False
        self.deliveries[delivery.id] = delivery
        return True

    async def take(self, delivery: Delivery, until: float) -> bool:
        """As the store on AWS does; asked over a network, so that others have their turn."""
        await asyncio.sleep(0)
        if self.deliveries.get(delivery.id) != delivery:
            return False
        self.deliveries[delivery.id] = replace(delivery, due_at=until)
        return True


@dataclass
class ListedDeliveries:
    """A queue that keeps what was sent."""

    sent: list[Delivery] = field(default_factory=list)

    async def send(self, deliveries: Sequence[Delivery]) -> None:
        self.sent.extend(deliveries)


@dataclass(frozen=True)
class Posted:
    """One post that a receiver got."""

    tenant: str
    url: WebhookUrl
    headers: Mapping[str, str]
    body: str


class ScriptedSender:
    """Answers with what it is told, and then with 200."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = deque(answers)
        self.posted: list[Posted] = []

    async def post(
        self, tenant: str, url: WebhookUrl, headers: Mapping[str, str], body: str
    ) -> Answer:
        self.posted.append(Posted(tenant, url, headers, body))
        return self._answers.popleft() if self._answers else Answer(200)
