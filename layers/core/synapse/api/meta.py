"""Routes about the service itself: models, health, metrics, documentation."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import cache
from typing import Any

from synapse import __version__
from synapse.api.pages import (
    ASSETS,
    HTML,
    OF_THIS_SERVER,
    REDOC_PAGE,
    SWAGGER_PAGE,
    asset_text,
)
from synapse.api.resolver import Api, Reply
from synapse.api.responses import ERRORS, json_response
from synapse.api.schemas import HealthBody, ModelBody, ModelList, WorkerBody
from synapse.api.services import Services
from synapse.application.checks import runnable_model, runnable_models
from synapse.domain.access import Principal, Scope
from synapse.domain.errors import FileUnknown
from synapse.domain.model import ModelSpec

DESCRIPTION = "Model inference on your own AWS account or one machine, asynchronous and durable."
SECURITY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "An API key (`sk-syn-…`), or a token of the identity provider.",
    }
}
ASKED: list[dict[str, list[str]]] = [{scheme: []} for scheme in SECURITY_SCHEMES]
WELCOME: list[dict[str, list[str]]] = [{}, *ASKED]
"""With a credential or without, which is not the same."""

_REFUSAL = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorBody"}}}
REFUSALS = {
    "401": {"description": "No credential, or one that is not valid", "content": _REFUSAL},
    "403": {"description": "The key or token may not do this", "content": _REFUSAL},
}

EXPOSITION = "text/plain; version=0.0.4"
WEEK_CACHED = {"Cache-Control": "public, max-age=604800"}


def add_meta_routes(api: Api, services: Services) -> None:
    """Register the routes on `api`."""

    @api.handles(
        "GET",
        "/v1/models",
        scope=Scope.INFERENCE,
        summary="The models served",
        tags=["models"],
        responses={200: json_response("The models", ModelList)},
    )
    async def models(caller: Principal) -> Reply:
        served = await runnable_models(services.registry, caller)
        return Reply(ModelList(data=[_model(each) for each in served]))

    @api.handles(
        "GET",
        "/v1/models/<model>",
        scope=Scope.INFERENCE,
        summary="One model",
        tags=["models"],
        responses={200: json_response("The model", ModelBody), 404: ERRORS[404]},
    )
    async def model(caller: Principal, model: str) -> Reply:
        return Reply(_model(await runnable_model(services.registry, model, caller)))

    @api.handles(
        "GET",
        "/health",
        scope=None,
        summary="Whether the service is up; with a credential, also each of its workers",
        tags=["service"],
        responses={200: json_response("Up; see `status`", HealthBody)},
    )
    async def health(caller: Principal | None) -> Reply:
        health = await services.health()
        if caller is None:
            return Reply({"status": health.status})
        workers = [WorkerBody(**asdict(each)) for each in health.workers if caller.sees(each.model)]
        return Reply(
            HealthBody.model_validate(
                {
                    "status": health.status,
                    "version": __version__,
                    "workers": workers,
                    "detail": health.detail,
                }
            )
        )

    @api.handles(
        "GET",
        "/metrics",
        scope=Scope.ADMIN,
        summary="Prometheus exposition",
        tags=["service"],
        responses={
            200: {
                "description": "The metrics as text",
                "content": {EXPOSITION: {"schema": {"type": "string"}}},
            }
        },
    )
    async def metrics() -> Reply:
        return Reply(await services.metrics(), content_type=EXPOSITION)


def add_documentation_routes(api: Api) -> None:
    """Register the OpenAPI document and its two readers; their assets are served from here."""

    @cache
    def document() -> str:
        # Loading this takes longer than anything else that is imported; few ask for the document.
        from aws_lambda_powertools.event_handler.openapi.models import Server

        # Relative to the document, so that API Gateway's /<stage> prefix is kept.
        here = Server(url=".")
        text = api.get_openapi_json_schema(
            title="Synapse", version=__version__, description=DESCRIPTION, servers=[here]
        )
        described = _without_foreign_errors(json.loads(text))
        return json.dumps(_with_security(described, api), ensure_ascii=False)

    @api.handles(
        "GET", "/openapi.json", scope=None, summary="This API's OpenAPI document", tags=["service"]
    )
    async def openapi() -> Reply:
        return Reply(document())

    @api.handles("GET", "/api/docs", scope=None, include_in_schema=False)
    async def swagger() -> Reply:
        return Reply(SWAGGER_PAGE, content_type=HTML, headers=OF_THIS_SERVER)

    @api.handles("GET", "/api/redoc", scope=None, include_in_schema=False)
    async def redoc() -> Reply:
        return Reply(REDOC_PAGE, content_type=HTML, headers=OF_THIS_SERVER)

    @api.handles("GET", "/api/static/<file>", scope=None, include_in_schema=False)
    async def static(file: str) -> Reply:
        content_type = ASSETS.get(file)
        if content_type is None:
            raise FileUnknown(f"there is no file {file!r} here")
        return Reply(asset_text(file), content_type=content_type, headers=WEEK_CACHED)


def _without_foreign_errors(document: dict[str, Any]) -> dict[str, Any]:
    """The document less the resolver's own validation error, which is never sent."""
    for operation in (each for path in document["paths"].values() for each in path.values()):
        if "HTTPValidationError" in json.dumps(operation["responses"].get("422")):
            del operation["responses"]["422"]
    for schema in ("HTTPValidationError", "ValidationError"):
        document["components"]["schemas"].pop(schema, None)
    return document


def _with_security(document: dict[str, Any], api: Api) -> dict[str, Any]:
    """The document, which now tells what each operation asks of its caller."""
    document["components"]["securitySchemes"] = SECURITY_SCHEMES
    by_path = {(verb, _path(rule)): scope for (verb, rule), scope in api.scopes.by_route.items()}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            scope = by_path[method.upper(), path]
            is_curious = (method.upper(), path) in api.curious
            operation["security"] = WELCOME if is_curious else [] if scope is None else ASKED
            if scope is not None:
                operation["description"] = f"Asks for the scope `{scope.value}`."
                operation["responses"] |= REFUSALS
    return document


def _path(rule: str) -> str:
    return rule.replace("<", "{").replace(">", "}")


def _model(spec: ModelSpec) -> ModelBody:
    return ModelBody(id=spec.name, created=spec.created_at, owned_by=spec.owner)
