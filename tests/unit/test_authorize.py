"""The function that tells API Gateway where a request carries its key."""

from __future__ import annotations

from functions.authorize.handler import handler

ARN = "arn:aws:execute-api:us-east-1:123456789012:abcdef1234/dev"
KEY = "abcdefghijklmnopqrstuvwxyz"


def authorization(token: str, route: str = "GET/v1/models") -> dict[str, str]:
    return {"type": "TOKEN", "authorizationToken": token, "methodArn": f"{ARN}/{route}"}


def test_a_bearer_token_is_the_key() -> None:
    assert handler(authorization(f"Bearer {KEY}"), None)["usageIdentifierKey"] == KEY


def test_a_header_of_nothing_else_is_the_key() -> None:
    assert handler(authorization(KEY), None)["usageIdentifierKey"] == KEY


def test_the_answer_is_good_for_every_route_because_api_gateway_keeps_it_for_all() -> None:
    one = handler(authorization(KEY, "GET/v1/models"), None)
    other = handler(authorization(KEY, "POST/async-infer"), None)

    assert one == other
    assert one["policyDocument"]["Statement"][0]["Resource"] == f"{ARN}/*"


def test_the_principal_which_is_logged_is_not_the_key() -> None:
    assert KEY not in handler(authorization(KEY), None)["principalId"]
