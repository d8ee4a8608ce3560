"""Who is let in, and to what: before anything else of a request is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.adapters.principal_records import principal_from_json, principal_to_json
from synapse.api.gate import anyone, bearer_of, from_authorizer
from synapse.api.resolver import Api, Reply
from synapse.domain.access import ALL_SCOPES, Limits, Principal, Scope
from synapse.domain.errors import Unauthenticated
from synapse.domain.job import SlaTier
from tests.unit.api.calls import api_of, call
from tests.unit.api.forms import upload
from tests.unit.application.world import CHAT, EMBEDDER, World

CALLER = Principal("team", "key-1", frozenset({Scope.INFERENCE}), frozenset({"echo"}))


async def nobody(event: Mapping[str, Any]) -> Principal:
    raise Unauthenticated("who are you?")


def known_as(caller: Principal) -> Any:
    async def identify(event: Mapping[str, Any]) -> Principal:
        return caller

    return identify


PUBLIC = ["/health", "/openapi.json", "/api/docs", "/api/redoc", "/nowhere"]


@pytest.mark.parametrize("path", PUBLIC)
async def test_what_is_for_everybody_asks_nobody(path: str) -> None:
    answered = await call(api_of(World(), nobody), "GET", path)
    assert answered.status == (404 if path == "/nowhere" else 200)


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/", "/v1/models/echo", "/metrics"])
async def test_other_routes_are_closed_to_strangers(path: str) -> None:
    answered = await call(api_of(World(), nobody), "GET", path)
    assert (answered.status, answered.error["code"]) == (401, "invalid_api_key")
    assert answered.headers["www-authenticate"] == "Bearer"


async def test_a_stranger_is_not_told_what_else_is_wrong() -> None:
    answered = await call(api_of(World(), nobody), "POST", "/async-infer", "{")
    assert answered.status == 401


async def test_who_lacks_the_scope_is_refused_by_its_name() -> None:
    answered = await call(api_of(World(), known_as(CALLER)), "GET", "/v1/files")
    assert (answered.status, answered.error["code"]) == (403, "insufficient_scope")
    assert "'batches'" in answered.error["message"]


async def test_a_model_that_is_not_allowed_is_as_if_it_were_not_there() -> None:
    api = api_of(World(), known_as(CALLER))
    listed = await call(api, "GET", "/v1/models")
    assert [each["id"] for each in listed.json["data"]] == ["echo"]

    async def refusal(model: str) -> str:
        answered = await call(api, "POST", "/async-infer", {"model": model, "prompt": "hi"})
        assert (answered.status, answered.error["code"]) == (404, "model_not_found")
        return str(answered.error["message"]).replace(model, "…")

    others = [spec.name for spec in await World().registry.models() if spec.name != "echo"]
    assert await refusal(others[0]) == await refusal("no-such-model")


async def test_a_tier_that_is_not_allowed_is_refused() -> None:
    bronze_only = replace(CALLER, tiers=frozenset({SlaTier.BRONZE}))
    api = api_of(World(), known_as(bronze_only))
    body = {"model": "echo", "prompt": "hi", "sla": "gold"}
    refused = await call(api, "POST", "/async-infer", body)
    assert (refused.status, refused.error["code"]) == (403, "tier_not_allowed")
    assert (await call(api, "POST", "/async-infer", body | {"sla": "bronze"})).status == 202


TASK = {"model": "echo", "data": {"text": "hi"}}
WITHOUT_A_TIER: Mapping[str, dict[str, Any]] = {
    "/async-infer": {"model": "echo", "prompt": "hi"},
    "/api/inference": TASK,
    "/api/inference/batch": {"requests": [TASK]},
    "/v1/embeddings": {"model": EMBEDDER, "input": "hi"},
    "/v1/completions": {"model": "echo", "prompt": "hi"},
    "/v1/chat/completions": {"model": CHAT, "messages": [{"role": "user", "content": "hi"}]},
    "/v1/responses": {"model": CHAT, "input": "hi"},
}


@pytest.mark.parametrize("tiers", [{tier} for tier in SlaTier] + [set(SlaTier) - {SlaTier.SILVER}])
@pytest.mark.parametrize("path", WITHOUT_A_TIER)
async def test_who_names_no_tier_is_served_in_one_that_they_have(
    path: str, tiers: set[SlaTier]
) -> None:
    bound = replace(CALLER, models=None, tiers=frozenset(tiers))
    answered = await call(api_of(World(), known_as(bound)), "POST", path, WITHOUT_A_TIER[path])
    assert answered.status in (200, 202), answered.text
    assert '"error":{' not in answered.text


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses"])
@pytest.mark.parametrize(
    ("asked", "tier", "told"),
    [(None, SlaTier.BRONZE, None), ("auto", SlaTier.BRONZE, "flex"), ("default", None, None)],
)
async def test_a_service_tier_that_is_not_named_is_the_nearest_that_the_key_has(
    path: str, asked: str | None, tier: SlaTier | None, told: str | None
) -> None:
    world = World()
    api = api_of(world, known_as(replace(CALLER, models=None, tiers=frozenset({SlaTier.BRONZE}))))
    body = WITHOUT_A_TIER[path] | ({"service_tier": asked} if asked else {})
    answered = await call(api, "POST", path, body)
    if tier is None:
        assert (answered.status, answered.error["code"]) == (403, "tier_not_allowed")
        return
    assert answered.json.get("service_tier") == told
    [(_, _, [request])] = world.engine.calls
    assert request.tier is tier


async def test_a_batch_is_for_those_who_may_ask_for_the_tier_of_its_lines() -> None:
    callers = [
        Principal("acme", "key1", tiers=frozenset({tier}))
        for tier in (SlaTier.GOLD, SlaTier.BRONZE)
    ]

    async def identify(event: Mapping[str, Any]) -> Principal:
        return callers[0]

    api = api_of(World(), identify)
    body = {
        "input_file_id": (await upload(api)).json["id"],
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    }
    refused = await call(api, "POST", "/v1/batches", body)
    assert (refused.status, refused.error["code"]) == (403, "tier_not_allowed")
    assert refused.error["message"] == (
        "batches run in the SLA tier 'bronze', which is not among those of this key or token: "
        "gold; ask for one that has it"
    )
    callers.pop(0)
    allowed = await call(api, "POST", "/v1/batches", body)
    assert allowed.status == 200, allowed.text


async def test_a_job_is_there_for_its_own_tenant_only() -> None:
    world = World()
    mine, other = api_of(world, known_as(CALLER)), api_of(world, known_as(Principal("other")))
    job = (await call(mine, "POST", "/async-infer", {"model": "echo", "prompt": "hi"})).json
    path = f"/results/{job['jobId']}"

    assert (await call(mine, "GET", path)).status == 200
    for method, at in (("GET", path), ("DELETE", path), ("GET", f"/api/inference/{job['jobId']}")):
        foreign = await call(other, method, at)
        unknown = await call(other, method, at.replace(job["jobId"], "x" * len(job["jobId"])))
        assert foreign.status == unknown.status == 404
        text = unknown.text.replace("x" * len(job["jobId"]), job["jobId"])
        assert foreign.text == text
    assert (await call(mine, "GET", path)).json["status"] == "QUEUED"


async def test_a_route_whose_path_the_gate_does_not_know_is_closed() -> None:
    api = Api(nobody)

    @api.handles("GET", "/secret/<name>", scope=Scope.ADMIN)
    async def secret(name: str) -> Reply:
        return Reply({"secret": name})

    api.scopes._with_parameters.clear()
    assert (await call(api, "GET", "/secret/1")).status == 401


async def test_a_route_that_the_gate_takes_for_another_asks_for_its_own_scope() -> None:
    api = Api(known_as(replace(CALLER, scopes=frozenset({Scope.INFERENCE}))))

    @api.handles("GET", "/secret/<name>", scope=Scope.ADMIN)
    async def secret(name: str) -> Reply:
        return Reply({"secret": name})

    api.scopes._fixed["GET", "/secret/1"] = Scope.INFERENCE
    refused = await call(api, "GET", "/secret/1")
    assert (refused.status, refused.error["code"]) == (403, "insufficient_scope")


@pytest.mark.parametrize(
    "header",
    [{}, {"authorization": "Basic abc"}, {"authorization": "Bearer "}, {"authorization": "x"}],
)
def test_a_request_without_a_bearer_is_told_what_to_send(header: dict[str, str]) -> None:
    with pytest.raises(Unauthenticated, match="Authorization: Bearer"):
        bearer_of({"headers": header})


@pytest.mark.parametrize("name", ["authorization", "Authorization"])
def test_a_bearer_is_read_whatever_the_case_of_its_scheme(name: str) -> None:
    assert bearer_of({"headers": {name: "bearer  abc "}}) == "abc"


async def test_nobody_is_anybody_where_the_authorizer_was_not_asked() -> None:
    events: list[dict[str, Any]] = [
        {},
        {"requestContext": {}},
        {"requestContext": {"authorizer": {}}},
    ]
    for event in events:
        with pytest.raises(Unauthenticated):
            await from_authorizer(event)
    handed_on = {"requestContext": {"authorizer": {"principal": principal_to_json(CALLER)}}}
    assert await from_authorizer(handed_on) == CALLER
    assert (await anyone({})).scopes == ALL_SCOPES


principals = st.builds(
    Principal,
    tenant=st.text(min_size=1),
    account=st.text(),
    scopes=st.frozensets(st.sampled_from(Scope)),
    models=st.none() | st.frozensets(st.text()),
    tiers=st.none() | st.frozensets(st.sampled_from(SlaTier)),
    limits=st.builds(Limits, requests_per_minute=st.none() | st.integers(0)),
    tenant_limits=st.builds(Limits, monthly_usd=st.none() | st.floats(0, 1e9)),
)


@given(principals)
def test_a_principal_is_the_same_when_it_was_handed_on(principal: Principal) -> None:
    assert principal_from_json(principal_to_json(principal)) == principal
