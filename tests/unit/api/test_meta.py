"""Models, health, metrics and the documentation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from synapse import __version__
from synapse.api.gate import Identify, anyone
from synapse.api.resolver import Api, Reply
from synapse.domain.access import Principal, Scope
from synapse.domain.errors import Unauthenticated, Unavailable
from tests.factories import a_health, a_pool
from tests.fakes import MemoryRegistry
from tests.unit.api.calls import api_of, call
from tests.unit.application.world import CHAT, EMBEDDER, World


async def test_models_are_listed_as_openai_lists_them() -> None:
    api = api_of(World())

    listed = (await call(api, "GET", "/v1/models")).json
    one = (await call(api, "GET", f"/v1/models/{CHAT}")).json

    assert listed["object"] == "list"
    assert [model["id"] for model in listed["data"]] == [EMBEDDER, "echo", CHAT]
    assert one == {"id": CHAT, "object": "model", "created": 0, "owned_by": "synapse"}


async def test_a_model_that_no_pool_serves_is_not_listed() -> None:
    models = await World().registry.models()
    api = api_of(World(registry=MemoryRegistry(models, [a_pool(models=frozenset({CHAT}))])))

    listed = (await call(api, "GET", "/v1/models")).json
    one = await call(api, "GET", "/v1/models/echo")

    assert [model["id"] for model in listed["data"]] == [CHAT]
    assert (one.status, one.json["error"]["code"]) == (404, "model_not_found")


async def test_health_tells_how_the_workers_are() -> None:
    world = World()
    api = api_of(world)

    assert (await call(api, "GET", "/health")).json["status"] == "starting"
    await world.registry.record_health(a_health("gpu"))
    assert (await call(api, "GET", "/health")).json["status"] == "ok"
    await world.registry.record_health(a_health("cpu", healthy=False, detail="refused"))
    degraded = (await call(api, "GET", "/health")).json
    assert degraded["status"] == "degraded"
    assert {w["pool"]: w["detail"] for w in degraded["workers"]} == {"cpu": "refused", "gpu": ""}


async def nobody(event: Mapping[str, Any]) -> Principal:
    raise Unauthenticated("who are you?")


async def cannot_tell(event: Mapping[str, Any]) -> Principal:
    raise Unavailable("the records of keys cannot be read")


@pytest.mark.parametrize("identify", [nobody, cannot_tell])
async def test_strangers_are_told_of_health_nothing_but_a_word(identify: Identify) -> None:
    world = World()
    await world.registry.record_health(a_health("cpu", healthy=False, detail="refused"))

    told = await call(api_of(world, identify), "GET", "/health")

    assert (told.status, told.json) == (200, {"status": "degraded"})


async def test_who_has_a_key_is_told_of_the_workers_of_his_models() -> None:
    world = World()
    await world.registry.record_health(a_health("gpu"))
    await world.registry.record_health(replace(a_health("gpu"), model=CHAT))

    async def known(event: Mapping[str, Any]) -> Principal:
        return Principal("team", "key-1", frozenset({Scope.USAGE}), frozenset({"echo"}))

    told = (await call(api_of(world, known), "GET", "/health")).json

    assert [worker["model"] for worker in told["workers"]] == ["echo"]
    assert told["version"] == __version__


async def test_health_may_ask_another_than_the_other_routes_do() -> None:
    """As on AWS, where the authorizer is not asked at routes for everybody."""
    keys = Api(nobody, recognise=anyone)

    @keys.handles("GET", "/health", scope=None)
    async def health(caller: Principal | None) -> Reply:
        return Reply({"known": caller is not None})

    @keys.handles("GET", "/closed", scope=Scope.USAGE)
    async def closed() -> Reply:
        return Reply({})

    assert (await call(keys, "GET", "/health")).json == {"known": True}
    assert (await call(keys, "GET", "/closed")).status == 401


async def test_metrics_are_prometheus_text() -> None:
    world = World()
    await world.registry.record_health(a_health("gpu"))
    await world.submit()

    answer = await call(api_of(world), "GET", "/metrics")

    assert answer.headers["content-type"].startswith("text/plain")
    assert 'synapse_worker_healthy{model="echo",pool="gpu"} 1' in answer.text
    assert 'synapse_queue_depth{priority="normal"} 1' in answer.text


async def test_the_document_describes_every_route_and_its_errors() -> None:
    document = (await call(api_of(World()), "GET", "/openapi.json")).json

    assert set(document["paths"]) == {
        "/async-infer",
        "/infer",
        "/results/{job_id}",
        "/api/inference",
        "/api/inference/batch",
        "/api/inference/{task_id}",
        "/api/auth/login",
        "/api/webhooks",
        "/api/webhooks/{webhook_id}",
        "/api/webhooks/{webhook_id}/rotate",
        "/api/webhooks/deliveries",
        "/api/admin/route",
        "/api/admin/workers",
        "/api/admin/pools",
        "/api/admin/keys",
        "/api/admin/keys/{key_id}",
        "/api/admin/keys/{key_id}/rotate",
        "/api/admin/tenants",
        "/api/admin/tenants/{name}",
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/v1/batches",
        "/v1/batches/{batch_id}",
        "/v1/batches/{batch_id}/cancel",
        "/v1/files",
        "/v1/files/{file_id}",
        "/v1/files/{file_id}/content",
        "/v1/uploads",
        "/v1/uploads/{upload_id}/parts",
        "/v1/uploads/{upload_id}/complete",
        "/v1/uploads/{upload_id}/cancel",
        "/v1/usage",
        "/v1/models",
        "/v1/models/{model}",
        "/health",
        "/metrics",
        "/openapi.json",
    }
    assert document["servers"] == [{"url": "."}]  # beside the document, whatever the stage
    submit = document["paths"]["/async-infer"]["post"]
    assert set(submit["responses"]) >= {"202", "400", "404", "413", "422", "503"}
    assert "AsyncInferRequest" in json.dumps(submit["requestBody"])
    chat = document["paths"]["/v1/chat/completions"]["post"]
    refusals = ("400", "401", "403", "404", "413", "422", "503", "504")
    assert set(chat["responses"]) == {"200", *refusals}
    assert set(chat["responses"]["200"]["content"]) == {"application/json", "text/event-stream"}
    assert "HTTPValidationError" not in json.dumps(document)


async def test_the_document_tells_which_operations_are_for_everybody() -> None:
    document = (await call(api_of(World()), "GET", "/openapi.json")).json

    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    asked = {
        f"{method} {path}": operation["security"]
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    free = {operation for operation, security in asked.items() if security == []}
    assert free == {"get /openapi.json", "post /api/auth/login"}
    assert asked.pop("get /health") == [{}, {"bearer": []}]
    assert all(asked[operation] == [{"bearer": []}] for operation in set(asked) - free)


async def test_the_pages_load_nothing_from_elsewhere() -> None:
    api = api_of(World())
    for page in ("/api/docs", "/api/redoc"):
        html = await call(api, "GET", page)
        assert html.headers["content-type"].startswith("text/html")
        assert "http" not in re.sub(r"<!doctype.*?>", "", html.text)
        for asset in re.findall(r'(?:src|href)="static/([^"]+)"', html.text):
            loaded = await call(api, "GET", f"/api/static/{asset}")
            assert loaded.status == 200
            assert len(loaded.text) > 100_000


@pytest.mark.parametrize("page", ["docs", "redoc"])
async def test_a_browser_is_told_to_load_nothing_from_elsewhere(page: str) -> None:
    """What is bundled would: ReDoc shows the logo of its maker."""
    shown = await call(api_of(World()), "GET", f"/api/{page}")

    policy = shown.headers["content-security-policy"].split()
    assert policy[:2] == ["default-src", "'self'"]
    assert all(source.endswith(":") or source.startswith("'unsafe-") for source in policy[2:])
    assert not {"http:", "https:"} & set(policy)


@pytest.mark.parametrize("page", ["docs", "redoc"])
async def test_a_page_with_a_slash_too_many_goes_to_the_one_without(page: str) -> None:
    """Its relative addresses lead nowhere from there, and it would stay blank."""
    shown = await call(api_of(World()), "GET", f"/api/{page}/")

    head, _, rest = shown.text.partition("<script>")
    assert 'src="' not in head
    assert rest.lstrip().startswith('if (location.pathname.endsWith("/"))')
    assert f'location.replace("../{page}"' in rest
