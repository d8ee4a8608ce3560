"""API Gateway asks where a request carries its API key.

OpenAI's clients send theirs as a bearer token, which API Gateway does not look at by itself. It
still checks the key and its usage plan: this function only says which one it is.
"""

from __future__ import annotations

from typing import Any


def handler(event: dict[str, Any], context: object) -> dict[str, Any]:
    """Let the request pass, with the header's last word as its key.

    API Gateway has matched the header already (`ValidationExpression` in the template), and keeps
    the answer for this header, whatever the route: hence a policy for the whole stage.
    """
    key = event["authorizationToken"].split()[-1]
    arn, stage, *_ = event["methodArn"].split("/")
    statement = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": f"{arn}/{stage}/*"}
    return {
        # Access logs have the principal, so it must not be the key.
        "principalId": "api-key",
        "policyDocument": {"Version": "2012-10-17", "Statement": [statement]},
        "usageIdentifierKey": key,
    }
