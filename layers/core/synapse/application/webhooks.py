"""Webhooks: who is told of what ends, the telling, and what became of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from synapse.domain.delivery import Answer, Delivery, DeliveryState, delivery_of, headers_of
from synapse.domain.errors import (
    InvalidRequest,
    Unavailable,
    WebhookUnknown,
)
from synapse.domain.webhook import (
    CALLBACKS,
    MAX_ENDPOINTS,
    SECRET_BYTES,
    Endpoint,
    Event,
    EventType,
    Secret,
    secret_of,
)
from synapse.domain.webhook_url import NONE_ALLOWED, Allowed, WebhookUrl, url_of
from synapse.ports import Clock, Telemetry
from synapse.ports.webhooks import DeliveryQueue, DeliveryStore, EndpointStore, Sender

logger = logging.getLogger(__name__)

TRIES = 5
MAX_KNOWN = 10_000
"""Tenants of whom it is remembered whether they listen."""

MAX_ID_LENGTH = 64


@dataclass(frozen=True, slots=True)
class Webhooks:
    """The endpoints of tenants. `random` gives so many bytes that nobody can guess."""

    endpoints: EndpointStore
    deliveries: DeliveryStore
    clock: Clock
    new_id: Callable[[], str]
    random: Callable[[int], bytes]
    allowed: Allowed = NONE_ALLOWED

    async def register(self, tenant: str, url: str, events: frozenset[EventType]) -> Endpoint:
        """A new endpoint; its secret is in the answer, and told nobody again.

        Raises:
            InvalidRequest: nothing may be sent to that URL, or there are too many already.
        """
        where = checked_url(url, self.allowed, "url")
        if len(await self.of(tenant)) >= MAX_ENDPOINTS:
            raise InvalidRequest(
                f"url: there are {MAX_ENDPOINTS} webhooks already; delete one first", param="url"
            )
        endpoint = Endpoint(
            f"we_{self.new_id()}", tenant, where.text, events, (self._secret(),), self.clock()
        )
        if not await self.endpoints.create(endpoint):
            raise Unavailable("the endpoint could not be recorded; try again")
        return endpoint

    async def of(self, tenant: str) -> Sequence[Endpoint]:
        """The endpoints that the tenant has registered."""
        return [each for each in await self.endpoints.of(tenant) if each.id != CALLBACKS]

    async def delete(self, tenant: str, endpoint_id: str) -> None:
        """Forget an endpoint; what was not delivered to it yet is given up.

        Raises:
            WebhookUnknown: there is none.
        """
        _require_id(endpoint_id)
        if endpoint_id == CALLBACKS or not await self.endpoints.delete(tenant, endpoint_id):
            raise _unknown(endpoint_id)

    async def rotate(self, tenant: str, endpoint_id: str) -> Endpoint:
        """Give an endpoint a new secret, beside which the one before signs for a day.

        Raises:
            WebhookUnknown: there is no such endpoint.
        """
        _require_id(endpoint_id)
        if endpoint_id == CALLBACKS:
            await self.callbacks(tenant)
        for _ in range(TRIES):
            endpoint = await self.endpoints.get(tenant, endpoint_id)
            if endpoint is None:
                raise _unknown(endpoint_id)
            rotated = endpoint.rotated(self._secret().text, self.clock())
            if await self.endpoints.replace(rotated):
                return rotated
        raise Unavailable("the endpoint is being changed by others; try again")

    async def callbacks(self, tenant: str) -> Endpoint:
        """Whose secret signs what goes to the tenant's `callback_url`s; made when first needed."""
        for _ in range(TRIES):
            endpoint = await self.endpoints.get(tenant, CALLBACKS)
            if endpoint is not None:
                return endpoint
            secrets = (self._secret(),)
            await self.endpoints.create(
                Endpoint(CALLBACKS, tenant, "", frozenset(), secrets, self.clock())
            )
        raise Unavailable("the secret of callbacks could not be made; try again")

    async def sent(self, tenant: str, subject: str) -> Sequence[Delivery]:
        """What became of the telling of a job's or a batch's end."""
        return await self.deliveries.of(tenant, subject)

    def _secret(self) -> Secret:
        return Secret(secret_of(self.random(SECRET_BYTES)))


@dataclass(slots=True)
class Audience:
    """Knows at submission whether a job's end is to be told anybody.

    What it knows of a tenant may be `fresh_s` old: an endpoint is told of the jobs that are
    submitted once it has been registered for so long.
    """

    endpoints: EndpointStore
    clock: Clock
    allowed: Allowed = NONE_ALLOWED
    fresh_s: float = 0.0
    _known: dict[str, tuple[float, bool]] = field(default_factory=dict)

    async def wants(self, tenant: str, callback_url: str | None) -> bool:
        """Whether somebody is to be told.

        Raises:
            InvalidRequest: nothing may be sent to the URL.
        """
        if callback_url is not None:
            checked_url(callback_url, self.allowed, "callback_url")
            return True
        until, known = self._known.get(tenant, (0.0, False))
        if self.clock() < until:
            return known
        try:
            endpoints = await self.endpoints.of(tenant)
        except Unavailable:
            # Then it is looked at once the job has ended.
            return True
        wanted = any(kind.is_of_job for each in endpoints for kind in each.events)
        if self.fresh_s:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[tenant] = (self.clock() + self.fresh_s, wanted)
        return wanted


@dataclass(frozen=True, slots=True)
class Announcer:
    """Makes deliveries of events: the same ones, however often it is told of an event."""

    endpoints: EndpointStore
    deliveries: DeliveryStore
    queue: DeliveryQueue
    clock: Clock
    allowed: Allowed = NONE_ALLOWED

    async def announce(self, events: Sequence[Event]) -> None:
        """See to it that everybody who wants to be told is told.

        Raises:
            Unavailable: it could not be recorded or queued; announce them again.
        """
        wanted: list[Delivery] = []
        for event in events:
            wanted += await self._deliveries(event)
        if wanted:
            await self.queue.send(await self.deliveries.add(wanted))

    async def _deliveries(self, event: Event) -> list[Delivery]:
        places = [
            (each.id, each.url)
            for each in await self.endpoints.of(event.tenant)
            if each.wants(event.type)
        ]
        if event.callback_url is not None:
            places.append((CALLBACKS, event.callback_url))
        made: list[Delivery] = []
        now = self.clock()
        for endpoint_id, text in places:
            try:
                url = url_of(text, self.allowed)
            except ValueError as error:
                # It was allowed when it was given.
                refused = delivery_of(event, endpoint_id, text, "", now)
                made.append(refused.given_up(f"the URL {error}"))
            else:
                made.append(delivery_of(event, endpoint_id, url.text, url.host, now))
        return made


@dataclass(frozen=True, slots=True)
class Deliverer:
    """Makes one attempt at a delivery, and writes down what came of it."""

    webhooks: Webhooks
    sender: Sender
    uniform: Callable[[], float]
    telemetry: Telemetry

    async def attempt(self, delivery: Delivery) -> Delivery:
        """The delivery as it stands after an attempt; one that has ended is left alone.

        Raises:
            Unavailable: its endpoint cannot be read, no attempt be begun, or the outcome not be
                written; try it again.
        """
        if delivery.state is not DeliveryState.PENDING:
            return delivery
        after = await self._tried(delivery)
        await self.webhooks.deliveries.save(after)
        self.telemetry.webhook_tried(after)
        if after.state is DeliveryState.GIVEN_UP:
            told = {
                "delivery": after.id,
                "tenant": after.tenant,
                "subject": after.subject,
                "host": after.host,
                "attempts": after.attempts,
                "last_status": after.last_status,
            }
            logger.warning("webhook given up: %s", after.last_error or "refused", extra=told)
        return after

    async def _tried(self, delivery: Delivery) -> Delivery:
        hooks, clock = self.webhooks, self.webhooks.clock
        if delivery.endpoint_id == CALLBACKS:
            endpoint: Endpoint | None = await hooks.callbacks(delivery.tenant)
        else:
            endpoint = await hooks.endpoints.get(delivery.tenant, delivery.endpoint_id)
        if endpoint is None:
            return delivery.given_up("the endpoint was deleted")
        try:
            url = url_of(delivery.url, hooks.allowed)
        except ValueError as error:
            return delivery.given_up(f"the URL {error}")
        now = clock()
        headers = headers_of(delivery, endpoint.signing(now), now)
        try:
            answer = await self.sender.post(delivery.tenant, url, headers, delivery.body)
        except Unavailable:
            # Nothing was sent, and the receiver has no part in it.
            raise
        except Exception:
            # It may have been sent all the same: not counted, it would be sent for ever.
            logger.exception("webhook not sent", extra={"delivery": delivery.id})
            answer = Answer(error="it could not be sent")
        return delivery.after(answer, clock(), self.uniform())


def checked_url(text: str, allowed: Allowed, param: str) -> WebhookUrl:
    """The URL of a request's field.

    Raises:
        InvalidRequest: nothing may be sent there.
    """
    try:
        return url_of(text, allowed)
    except ValueError as error:
        raise InvalidRequest(f"{param}: {error}", param=param) from error


def _require_id(text: str) -> None:
    """Refuse what is no id of ours: stores have limits to what they can be asked for."""
    if len(text) > MAX_ID_LENGTH or not text.isascii():
        raise _unknown(text[:MAX_ID_LENGTH])


def _unknown(endpoint_id: str) -> WebhookUnknown:
    return WebhookUnknown(f"there is no webhook {endpoint_id!r}")
