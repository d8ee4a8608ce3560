"""The front door: its routes are the application's, and no route is open by accident."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from synapse.api.app import create_api
from synapse.api.gate import from_authorizer
from synapse.api.resolver import Api
from synapse.api.services import Services
from tests.infra.translation import TEMPLATE, gateway_responses, of_type, read, translated

# They tell nothing of jobs and cost no inference.
OPEN = {
    *("/health", "/openapi.json", "/api/docs", "/api/redoc", "/api/static/{file}"),
    "/api/auth/login",
}
BRACES = str.maketrans("", "", "{}")
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
    documented = an_api().get_openapi_schema().paths or {}

    answered = {
        (method.upper(), anonymous(path))
        for path, item in documented.items()
        for method in METHODS
        if getattr(item, method)
    }

    deployed = {(method, anonymous(path)) for method, path in deployed_routes()}
    assert answered <= deployed
    assert {path for _, path in deployed - answered} <= {anonymous(path) for path in OPEN}


def an_api() -> Api:
    services = Services.__new__(Services)
    object.__setattr__(services, "identify", from_authorizer)
    object.__setattr__(services, "cors_origins", ())
    object.__setattr__(services, "recognise", None)
    object.__setattr__(services, "login", None)
    return create_api(services)


def anonymous(path: str) -> str:
    """Without the parameters' names, which are nobody's business but the code's."""
    return re.sub(r"{\w+}", "{}", path)


def test_only_the_routes_meant_to_be_open_go_without_a_key() -> None:
    unasked = {path for (_, path), operation in deployed_routes().items() if not asks(operation)}

    assert unasked == OPEN


def asks(operation: Any) -> bool:
    needs = [name for need in operation.get("security", []) for name in need]
    assert set(needs) <= {"Bearer", "NONE"}, "there is one authorizer"
    return "Bearer" in needs


async def test_a_route_without_an_authorizer_is_one_on_which_the_application_asks_nobody() -> None:
    """Whatever the template says, the application refuses who was not asked."""
    api = an_api()

    for (method, path), operation in deployed_routes().items():
        event = {"httpMethod": method, "path": path.translate(BRACES), "headers": {}}
        answer = await api.answer(event, None)
        assert (answer["statusCode"] == 401) == asks(operation), (path, answer)


def test_a_browser_is_told_that_no_page_may_call_unless_origins_are_named() -> None:
    preflights = [each["options"] for each in api_body()["paths"].values()]

    for preflight in preflights:
        assert "Bearer" not in str(preflight.get("security"))
        integration = preflight["x-amazon-apigateway-integration"]
        assert integration["type"] == "mock", "nobody pays for the question"
        headers = integration["responses"]["default"]["responseParameters"]
        assert headers["method.response.header.Access-Control-Allow-Origin"] == {
            "Fn::If": ["HasCors", "'*'", {"Ref": "AWS::NoValue"}]
        }
        assert "method.response.header.Access-Control-Allow-Credentials" not in headers
    assert read(TEMPLATE)["Parameters"]["CorsOrigins"]["Default"] == ""


def test_api_gateway_decompresses_no_body() -> None:
    """With a minimum size it would, and hand on what came of it."""
    (api,) = of_type(translated(), "AWS::ApiGateway::RestApi").values()

    assert "MinimumCompressionSize" not in api["Properties"]


def test_whoever_calls_is_looked_at_anew_after_a_minute() -> None:
    """A key that was revoked opens nothing for longer."""
    (authorizer,) = [
        (definition["name"], definition["x-amazon-apigateway-authorizer"])
        for definition in api_body()["securityDefinitions"].values()
        if "x-amazon-apigateway-authorizer" in definition
    ]

    header, settings = authorizer
    assert (header, settings["type"]) == ("Authorization", "token")
    assert settings["authorizerResultTtlInSeconds"] == 60


@pytest.mark.parametrize(
    ("header", "is_asked"),
    [
        ("Bearer sk-syn-abcdefghijkl" + "S" * 43, True),
        ("bearer eyJhbGciOiJSUzI1NiJ9." + "a" * 3000 + ".sig-nature_", True),
        ("Basic dXNlcjpwYXNzd29yZA==", False),
        ("Bearer short", False),
        ("Bearer with a space in it", False),
        ("sk-syn-abcdefghijkl" + "S" * 43, False),
    ],
)
def test_what_can_be_no_credential_costs_no_invocation(header: str, is_asked: bool) -> None:
    expression = next(
        definition["x-amazon-apigateway-authorizer"]["identityValidationExpression"]
        for definition in api_body()["securityDefinitions"].values()
        if "x-amazon-apigateway-authorizer" in definition
    )

    assert (re.fullmatch(expression, header) is not None) == is_asked


def test_the_stage_limits_the_rate_of_all_requests() -> None:
    (stage,) = of_type(translated(), "AWS::ApiGateway::Stage").values()

    (settings,) = stage["Properties"]["MethodSettings"]
    assert settings["ResourcePath"] == "/*"
    assert {"ThrottlingRateLimit", "ThrottlingBurstLimit"} <= set(settings)


def test_the_stage_writes_an_access_log_of_valid_json_without_bodies() -> None:
    (stage,) = of_type(translated(), "AWS::ApiGateway::Stage").values()

    entry = json.loads(stage["Properties"]["AccessLogSetting"]["Format"])

    assert {"requestId", "route", "status", "latencyMs"} <= set(entry)
    assert not any("body" in value.lower() for value in entry.values())


KINDS = list(read(TEMPLATE)["Resources"]["Api"]["Properties"]["GatewayResponses"])
"""As the template has them: every process that loads these tests would translate it."""


@pytest.mark.parametrize("kind", KINDS)
def test_api_gateways_own_errors_have_the_shape_of_ours(kind: str) -> None:
    response = gateway_responses(translated())[kind]
    template = response["responseTemplates"]["application/json"]

    body = json.loads(template.replace("$context.error.messageString", '"text"'))

    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    header = "gatewayresponse.header.x-request-id"
    assert response["responseParameters"][header] == "context.requestId"


def test_who_asks_for_an_unknown_path_is_told_what_a_base_url_is() -> None:
    response = gateway_responses(translated())["MISSING_AUTHENTICATION_TOKEN"]
    error = json.loads(response["responseTemplates"]["application/json"])["error"]

    assert (int(response["statusCode"]), error["code"]) == (404, "route_not_found")
    assert "the base URL of OpenAI's clients is the API's address and /v1" in error["message"]
    assert "by this method" in error["message"]  # API Gateway says the same of these


def test_the_errors_a_caller_can_meet_at_the_door_are_all_mapped() -> None:
    needed = {"DEFAULT_4XX", "DEFAULT_5XX", "ACCESS_DENIED", "UNAUTHORIZED", "THROTTLED"}
    needed |= {"AUTHORIZER_FAILURE", "WAF_FILTERED"}
    needed |= {"MISSING_AUTHENTICATION_TOKEN", "REQUEST_TOO_LARGE", "INTEGRATION_TIMEOUT"}

    assert needed <= set(gateway_responses(translated())) == set(KINDS)
