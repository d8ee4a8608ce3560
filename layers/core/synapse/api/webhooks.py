"""Routes of webhooks, `/api/webhooks…`: where a tenant is told of what ends, and how that went."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Body, Query

from synapse.api.replies import NOT_KEPT
from synapse.api.resolver import Api, Reply
from synapse.api.responses import errors, json_response
from synapse.api.services import Services
from synapse.api.webhook_schemas import (
    DeliveryBody,
    DeliveryList,
    NewWebhookBody,
    WebhookBody,
    WebhookDeleted,
    WebhookList,
    WebhookRequest,
)
from synapse.domain.access import Principal, Scope
from synapse.domain.delivery import Delivery
from synapse.domain.errors import InvalidRequest
from synapse.domain.webhook import Endpoint, EventType


def add_webhook_routes(api: Api, services: Services) -> None:
    """Register the routes on `api`."""

    @api.handles(
        "POST",
        "/api/webhooks",
        scope=Scope.INFERENCE,
        summary="Be told of what ends; the answer is the only one with the secret",
        tags=["webhooks"],
        responses={201: json_response("The webhook", NewWebhookBody), **errors(400, 503)},
    )
    async def register(caller: Principal, body: Annotated[WebhookRequest, Body()]) -> Reply:
        events = frozenset(EventType(each) for each in body.events)
        return _shown_once(await services.webhooks.register(caller.tenant, body.url, events))

    @api.handles(
        "GET",
        "/api/webhooks",
        scope=Scope.INFERENCE,
        summary="The tenant's webhooks, without their secrets",
        tags=["webhooks"],
        responses={200: json_response("The webhooks", WebhookList), **errors(503)},
    )
    async def list_webhooks(caller: Principal) -> Reply:
        found = await services.webhooks.of(caller.tenant)
        return Reply(WebhookList(data=[_webhook(each) for each in found]))

    @api.handles(
        "GET",
        "/api/webhooks/deliveries",
        scope=Scope.INFERENCE,
        summary="What became of the telling of a job's or a batch's end",
        tags=["webhooks"],
        responses={200: json_response("The deliveries", DeliveryList), **errors(400, 503)},
    )
    async def deliveries(
        caller: Principal,
        job: Annotated[str | None, Query(min_length=1, max_length=128)] = None,
        batch: Annotated[str | None, Query(min_length=1, max_length=128)] = None,
    ) -> Reply:
        if (job is None) == (batch is None):
            raise InvalidRequest("job: give the id of one job, or of one batch", param="job")
        found = await services.webhooks.sent(caller.tenant, job or batch or "")
        return Reply(DeliveryList(data=[_delivery(each) for each in found]))

    @api.handles(
        "DELETE",
        "/api/webhooks/<webhook_id>",
        scope=Scope.INFERENCE,
        summary="Forget a webhook; what was not delivered to it yet is given up",
        tags=["webhooks"],
        responses={200: json_response("Its id", WebhookDeleted), **errors(404, 503)},
    )
    async def delete(caller: Principal, webhook_id: str) -> Reply:
        await services.webhooks.delete(caller.tenant, webhook_id)
        return Reply(WebhookDeleted(id=webhook_id))

    @api.handles(
        "POST",
        "/api/webhooks/<webhook_id>/rotate",
        scope=Scope.INFERENCE,
        summary="Give a webhook, or all callbacks (id `callbacks`), a new secret",
        tags=["webhooks"],
        responses={201: json_response("The webhook", NewWebhookBody), **errors(404, 503)},
    )
    async def rotate(caller: Principal, webhook_id: str) -> Reply:
        return _shown_once(await services.webhooks.rotate(caller.tenant, webhook_id))


def _shown_once(endpoint: Endpoint) -> Reply:
    body = NewWebhookBody(**_webhook(endpoint).model_dump(), secret=endpoint.secrets[0].text)
    return Reply(body, HTTPStatus.CREATED, headers=NOT_KEPT)


def _webhook(endpoint: Endpoint) -> WebhookBody:
    return WebhookBody(
        id=endpoint.id,
        url=endpoint.url or None,
        events=sorted(endpoint.events),
        created_at=endpoint.created_at,
    )


def _delivery(delivery: Delivery) -> DeliveryBody:
    return DeliveryBody(
        id=delivery.id,
        event=delivery.event_id,
        type=delivery.type,
        webhook=delivery.endpoint_id,
        url=delivery.url,
        status=delivery.state,
        attempts=delivery.attempts,
        last_status_code=delivery.last_status,
        last_error=delivery.last_error or None,
        last_attempt_at=delivery.last_attempt_at,
        next_attempt_at=delivery.due_at,
        created_at=delivery.created_at,
    )
