"""Wiring of webhooks on one machine."""

from __future__ import annotations

import random
import secrets
import time
from collections.abc import Mapping

from synapse.adapters.local.webhooks import (
    SqliteDeliveryStore,
    SqliteEndpointStore,
    SqliteOutbox,
)
from synapse.application.webhooks import Announcer, Audience, Deliverer, Webhooks
from synapse.domain.delivery import Answer
from synapse.domain.webhook_url import Allowed, WebhookUrl
from synapse.ids import new_id
from synapse.ports import Clock, Telemetry
from synapse.ports.webhooks import Sender
from synapse_server.records import Records
from synapse_server.webhook_loop import LocalDeliveryQueue, WebhookLoop


class WebhookParts:
    """The use cases of webhooks over their records; nothing runs by itself."""

    def __init__(self, records: Records, telemetry: Telemetry, allowed: Allowed) -> None:
        clock = time.time
        endpoints = SqliteEndpointStore(records.access)
        self._deliveries = SqliteDeliveryStore(records.database, clock)
        queue = LocalDeliveryQueue()
        self.webhooks = Webhooks(
            endpoints, self._deliveries, clock, new_id, secrets.token_bytes, allowed
        )
        self.audience = Audience(endpoints, clock, allowed)
        self.loop = WebhookLoop(
            SqliteOutbox(records.database),
            self._deliveries,
            Announcer(endpoints, self._deliveries, queue, clock, allowed),
            Deliverer(self.webhooks, _Sender(clock), random.random, telemetry),
            queue,
        )

    async def purge(self) -> None:
        """Forget deliveries that ended long ago."""
        await self._deliveries.purge()


class _Sender:
    """See the port `Sender`. A start does not wait for an HTTP client that nobody may need."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sender: Sender | None = None

    async def post(
        self, tenant: str, url: WebhookUrl, headers: Mapping[str, str], body: str
    ) -> Answer:
        if self._sender is None:
            from synapse.adapters.web.sender import HttpSender

            self._sender = HttpSender(self._clock)
        return await self._sender.post(tenant, url, headers, body)
