"""Wiring of the AWS target, as far as webhooks go: what tells and what delivers loads no more."""

from __future__ import annotations

import os
import random
import secrets
import time
from functools import cache, cached_property

from synapse.adapters.aws.webhooks import event_of_record
from synapse.adapters.telemetry.emf import EmfTelemetry
from synapse.application.webhooks import Announcer, Audience, Deliverer, Webhooks
from synapse.aws_parts import Parts
from synapse.domain.webhook import Event
from synapse.domain.webhook_url import Allowed
from synapse.ids import new_id
from synapse.settings import Settings, SettingsError

ALLOW = "SYNAPSE_WEBHOOK_ALLOW"
AUDIENCE_FRESH_S = 10.0


@cache
def webhook_target() -> WebhookTarget:
    """The webhooks of this environment."""
    return WebhookTarget(Parts(Settings.load(os.environ)))


class WebhookTarget:
    """The use cases of webhooks over AWS adapters."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.telemetry = EmfTelemetry(parts.settings.service)

    @cached_property
    def webhooks(self) -> Webhooks:
        """The endpoints of tenants."""
        parts = self.parts
        return Webhooks(
            parts.endpoints,
            parts.deliveries,
            time.time,
            new_id,
            secrets.token_bytes,
            self._allowed,
        )

    @cached_property
    def audience(self) -> Audience:
        """Knows who will want to be told."""
        return Audience(self.parts.endpoints, time.time, self._allowed, AUDIENCE_FRESH_S)

    @cached_property
    def announcer(self) -> Announcer:
        """Makes deliveries of events."""
        parts = self.parts
        return Announcer(
            parts.endpoints, parts.deliveries, parts.delivery_queue, time.time, self._allowed
        )

    @cached_property
    def deliverer(self) -> Deliverer:
        """Makes attempts."""
        # Nobody else needs an HTTP client.
        from synapse.adapters.web.sender import HttpSender

        return Deliverer(self.webhooks, HttpSender(time.time), random.random, self.telemetry)

    async def event_of(self, record: dict[str, object]) -> Event | None:
        """What a record of the tables' streams is to be told of."""
        return await event_of_record(record, self.parts.file_batches)

    @cached_property
    def _allowed(self) -> Allowed:
        try:
            return Allowed.of(self.parts.settings.webhook_allow)
        except ValueError as error:
            raise SettingsError(f"{ALLOW}: {error}") from error
