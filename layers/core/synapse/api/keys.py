"""Routes for keys and tenants, `/api/admin/keys…` and `/api/admin/tenants…`."""

from __future__ import annotations

from dataclasses import asdict
from http import HTTPStatus
from typing import Annotated, Any

from aws_lambda_powertools.event_handler.openapi.params import Body, Query

from synapse.api.key_schemas import (
    KeyBody,
    KeyList,
    KeyRequest,
    LimitsBody,
    NewKeyBody,
    RotationRequest,
    TenantBody,
    TenantList,
    TenantName,
    TenantRequest,
)
from synapse.api.replies import NOT_KEPT
from synapse.api.resolver import Api, Reply
from synapse.api.responses import errors, json_response
from synapse.api.services import Services
from synapse.application.keys import Keys, KeyWish, NewKey
from synapse.domain.access import Limits, Principal, Scope, Tenant
from synapse.domain.api_key import ApiKey
from synapse.domain.job import SlaTier
from synapse.domain.rights import Rights


def add_key_routes(api: Api, services: Services) -> None:
    """Register the routes of keys on `api`."""

    @api.handles(
        "POST",
        "/api/admin/keys",
        scope=Scope.ADMIN,
        summary="Make an API key; the answer is the only one with its secret",
        tags=["keys"],
        responses={201: json_response("The key", NewKeyBody), **errors(400, 403, 503)},
    )
    async def create(caller: Principal, body: Annotated[KeyRequest, Body()]) -> Reply:
        return _shown_once(services.keys, await services.keys.create(caller, _wish(body)))

    @api.handles(
        "GET",
        "/api/admin/keys",
        scope=Scope.ADMIN,
        summary="The API keys of a tenant, without their secrets",
        tags=["keys"],
        responses={200: json_response("The keys", KeyList), **errors(400, 403, 503)},
    )
    async def list_keys(
        caller: Principal, tenant: Annotated[TenantName | None, Query()] = None
    ) -> Reply:
        found = await services.keys.list(caller, tenant)
        return Reply(KeyList(data=[KeyBody(**_fields(services.keys, key)) for key in found]))

    @api.handles(
        "DELETE",
        "/api/admin/keys/<key_id>",
        scope=Scope.ADMIN,
        summary="Revoke an API key: it opens nothing any more; on demand its jobs end with it",
        tags=["keys"],
        responses={200: json_response("The key", KeyBody), **errors(400, 404, 503)},
    )
    async def revoke(
        caller: Principal, key_id: str, cancel_jobs: Annotated[bool, Query()] = False
    ) -> Reply:
        end = services.keys.stop if cancel_jobs else services.keys.revoke
        return Reply(KeyBody(**_fields(services.keys, await end(caller, key_id))))

    @api.handles(
        "POST",
        "/api/admin/keys/<key_id>/rotate",
        scope=Scope.ADMIN,
        summary="Give an API key a new secret; the one it had is good for a while yet",
        tags=["keys"],
        responses={201: json_response("The key", NewKeyBody), **errors(400, 403, 404, 409, 503)},
    )
    async def rotate(
        caller: Principal, key_id: str, body: Annotated[RotationRequest | None, Body()] = None
    ) -> Reply:
        wish = body or RotationRequest()
        made = await services.keys.rotate(caller, key_id, wish.grace_s)
        return _shown_once(services.keys, made)


def add_tenant_routes(api: Api, services: Services) -> None:
    """Register the routes of tenants on `api`."""

    @api.handles(
        "GET",
        "/api/admin/tenants",
        scope=Scope.ADMIN,
        summary="The tenants and what each may use",
        tags=["keys"],
        responses={200: json_response("The tenants", TenantList), **errors(503)},
    )
    async def list_tenants(caller: Principal) -> Reply:
        found = await services.keys.tenants(caller)
        return Reply(TenantList(data=[_tenant(each) for each in found]))

    @api.handles(
        "GET",
        "/api/admin/tenants/<name>",
        scope=Scope.ADMIN,
        summary="One tenant",
        tags=["keys"],
        responses={200: json_response("The tenant", TenantBody), **errors(404, 503)},
    )
    async def tenant(caller: Principal, name: str) -> Reply:
        return Reply(_tenant(await services.keys.tenant(caller, name)))

    @api.handles(
        "PUT",
        "/api/admin/tenants/<name>",
        scope=Scope.ADMIN,
        summary="Set what the keys of a tenant may use together",
        tags=["keys"],
        responses={200: json_response("The tenant", TenantBody), **errors(400, 403, 404, 503)},
    )
    async def describe(
        caller: Principal, name: TenantName, body: Annotated[TenantRequest, Body()]
    ) -> Reply:
        described = Tenant(name, _limits(body.limits))
        return Reply(_tenant(await services.keys.describe(caller, described)))


def _wish(body: KeyRequest) -> KeyWish:
    rights = Rights(
        scopes=frozenset(Scope(each) for each in body.scopes),
        models=None if body.models is None else frozenset(body.models),
        tiers=None if body.tiers is None else frozenset(SlaTier(each) for each in body.tiers),
        limits=_limits(body.limits),
    )
    return KeyWish(body.name, rights, body.tenant, body.expires_in_s)


def _limits(body: LimitsBody) -> Limits:
    return Limits(**body.model_dump())


def _shown(limits: Limits) -> LimitsBody:
    """As they are kept, even where nobody could set them so: one bad entry must not hide a list."""
    return LimitsBody.model_construct(**asdict(limits))


def _tenant(tenant: Tenant) -> TenantBody:
    return TenantBody(name=tenant.name, limits=_shown(tenant.limits))


def _shown_once(keys: Keys, made: NewKey) -> Reply:
    body = NewKeyBody(**_fields(keys, made.key), key=made.text)
    return Reply(body, HTTPStatus.CREATED, headers=NOT_KEPT)


def _fields(keys: Keys, key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "tenant": key.tenant,
        "status": keys.status(key),
        "scopes": sorted(key.scopes),
        "models": None if key.models is None else sorted(key.models),
        "tiers": None if key.tiers is None else sorted(key.tiers),
        "limits": _shown(key.limits),
        "created_at": int(key.created_at),
        "expires_at": _seconds(key.expires_at),
        "revoked_at": _seconds(key.revoked_at),
        "jobs_cancelled_at": _seconds(key.stops_at),
        "rotated_at": _seconds(key.rotated_at),
        "previous_until": _seconds(key.previous_until or None),
    }


def _seconds(at: float | None) -> int | None:
    return None if at is None else int(at)
