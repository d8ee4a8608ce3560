"""API Gateway asks whose key or token a request carries, and whether it is good.

It keeps the answer for a minute, for all routes: whether the caller may use a route, the API says.
Callers wait for this function's start: X-Ray's SDK, half of what the others load, is left out.
"""

from __future__ import annotations

import json
from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from synapse.adapters.principal_records import principal_to_json
from synapse.aws_access import authenticator
from synapse.aws_loop import run
from synapse.domain.access import Principal
from synapse.domain.errors import Unauthenticated
from synapse.observability import lambda_logger

logger = lambda_logger()

MAX_ANSWER_BYTES = 8 * 1024
"""AWS documents it for WebSocket APIs, and nothing for REST APIs."""


class Unauthorized(Exception):
    """API Gateway knows it by its message, and answers 401."""

    def __init__(self) -> None:
        super().__init__("Unauthorized")


@logger.inject_lambda_context(clear_state=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Let the bearer of a good credential in.

    Raises:
        Unauthorized: it is no good.
        Unavailable: that cannot be told at present.
    """
    # API Gateway has matched the header already (`ValidationExpression` in the template).
    _, _, credential = event["authorizationToken"].partition(" ")
    try:
        principal = run(authenticator().principal(credential.strip()))
    except Unauthenticated:
        # Not chained: Lambda logs what it raises, and nothing of a refusal is worth a traceback.
        raise Unauthorized from None
    answer = _pass(principal, event["methodArn"])
    if len(json.dumps(answer)) > MAX_ANSWER_BYTES:
        # Whatever API Gateway makes of it: neither a 500 nor half of what a caller may do.
        logger.error("what the caller may do is too long to tell", account=principal.account)
        raise Unauthorized
    return answer


def _pass(principal: Principal, method_arn: str) -> dict[str, Any]:
    arn, stage, *_ = method_arn.split("/")
    statement = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": f"{arn}/{stage}/*"}
    return {
        # Access logs have the principal, so it must not be the key.
        "principalId": principal.account,
        "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
        "context": {"principal": principal_to_json(principal)},
    }
