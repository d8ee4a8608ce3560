"""The front door: its routes are the application's, and no route is open by accident."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from synapse.api.app import create_api
from synapse.api.gate import anyone
from synapse.api.services import Services
from tests.infra.translation import gateway_responses, of_type, translated

# They tell nothing of jobs and cost no inference.
OPEN = {"/health", "/openapi.json", "/api/docs", "/api/redoc", "/api/static/{file}"}
METHODS = {"get", "post", "put", "delete", "patch"}


def api_body() -> dict[str, Any]:
    (api,) = of_type(translated(), "AWS::ApiGateway::RestApi").values()
    body: dict[str, Any] = api["Properties"]["Body"]
    return body


def deployed_routes() -> dict[tuple[str, str], Any]:
    return {
        (method.upper(), path): operation
        for path, operations in api_body()["paths"].items()
        for method, operation in operations.items()
        if method in METHODS
    }


def test_the_deployed_routes_are_those_the_application_answers() -> None:
    services = Services.__new__(Services)
    object.__setattr__(services, "identify", anyone)
    documented = create_api(services).get_openapi_schema().paths or {}

    answered = {
        (method.upper(), anonymous(path))
        for path, item in documented.items()
        for method in METHODS
        if getattr(item, method)
    }

    deployed = {(method, anonymous(path)) for method, path in deployed_routes()}
    assert answered <= deployed
    assert {path for _, path in deployed - answered} <= {anonymous(path) for path in OPEN}


def anonymous(path: str) -> str:
    """Without the parameters' names, which are nobody's business but the code's."""
    return re.sub(r"{\w+}", "{}", path)


def test_only_the_routes_meant_to_be_open_go_without_a_key() -> None:
    keyless = {
        path
        for (_, path), operation in deployed_routes().items()
        if {"api_key": []} not in operation.get("security", [])
    }

    assert keyless == OPEN


def test_a_key_is_a_bearer_token_on_openais_routes_and_x_api_key_on_ours() -> None:
    """Without an authorizer a route that wants a key would refuse every one."""
    (api,) = of_type(translated(), "AWS::ApiGateway::RestApi").values()
    assert api["Properties"]["ApiKeySourceType"] == "AUTHORIZER"
    headers = {
        scheme: definition["name"]
        for scheme, definition in api_body()["securityDefinitions"].items()
        if "x-amazon-apigateway-authorizer" in definition
    }

    for (_, path), operation in deployed_routes().items():
        found = {
            headers[name]
            for need in operation.get("security", [])
            for name in need
            if name in headers
        }
        if path in OPEN:
            assert found == set()
        else:
            assert found == {"Authorization" if path.startswith("/v1/") else "x-api-key"}


def test_the_answer_of_an_authorizer_is_kept_for_minutes() -> None:
    authorizers = [
        definition["x-amazon-apigateway-authorizer"]
        for definition in api_body()["securityDefinitions"].values()
        if "x-amazon-apigateway-authorizer" in definition
    ]

    assert [a["authorizerResultTtlInSeconds"] for a in authorizers] == [300, 300]
    assert [a["type"] for a in authorizers] == ["token", "token"]


def test_a_usage_plan_limits_what_a_key_may_do() -> None:
    (plan,) = of_type(translated(), "AWS::ApiGateway::UsagePlan").values()

    assert set(plan["Properties"]["Throttle"]) == {"RateLimit", "BurstLimit"}


def test_the_stage_writes_an_access_log_of_valid_json_without_bodies() -> None:
    (stage,) = of_type(translated(), "AWS::ApiGateway::Stage").values()

    entry = json.loads(stage["Properties"]["AccessLogSetting"]["Format"])

    assert {"requestId", "route", "status", "latencyMs"} <= set(entry)
    assert not any("body" in value.lower() for value in entry.values())


@pytest.mark.parametrize(("kind", "response"), gateway_responses(translated()).items())
def test_api_gateways_own_errors_have_the_shape_of_ours(
    kind: str, response: dict[str, Any]
) -> None:
    template = response["responseTemplates"]["application/json"]

    body = json.loads(template.replace("$context.error.messageString", '"text"'))

    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    header = "gatewayresponse.header.x-request-id"
    assert response["responseParameters"][header] == "context.requestId"


def test_the_errors_a_caller_can_meet_at_the_door_are_all_mapped() -> None:
    needed = {"DEFAULT_4XX", "DEFAULT_5XX", "ACCESS_DENIED", "INVALID_API_KEY", "THROTTLED"}
    needed |= {"UNAUTHORIZED"}
    needed |= {"MISSING_AUTHENTICATION_TOKEN", "REQUEST_TOO_LARGE", "INTEGRATION_TIMEOUT"}

    assert needed <= set(gateway_responses(translated()))
