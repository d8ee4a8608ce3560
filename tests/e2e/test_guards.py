"""The stack that asked for guards: its own key, users, and pages that may call.

The emulator does not tell by which key a table or a bucket is encrypted: for those see tests/infra.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from synapse.domain.access import Scope
from tests.e2e.stack import Stack

PAGE = "https://app.example.com"


def client(stack: Stack, service: str) -> Any:
    return stack.emulator.session.client(service, endpoint_url=stack.emulator.url)  # type: ignore[call-overload]


@pytest.fixture(scope="module")
def key_arn(fleet: Stack) -> str:
    stacks = client(fleet, "cloudformation").describe_stacks()["Stacks"]
    arns = {
        output["OutputValue"]
        for stack in stacks
        if fleet.name in stack["StackName"]
        for output in stack.get("Outputs", [])
        if output["OutputKey"] == "KeyArn"
    }
    (arn,) = arns
    return str(arn)


@pytest.mark.parametrize("queue", ["High", "Normal", "Low", "Webhook"])
def test_queues_are_encrypted_by_the_stacks_own_key(fleet: Stack, key_arn: str, queue: str) -> None:
    url = fleet.outputs[f"{queue}QueueUrl"]

    answer = client(fleet, "sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])

    assert answer["Attributes"]["KmsMasterKeyId"] == key_arn
    assert answer["Attributes"].get("SqsManagedSseEnabled", "false") == "false"


def test_logs_are(fleet: Stack, key_arn: str) -> None:
    prefix = f"/aws/lambda/{fleet.name}-"

    answer = client(fleet, "logs").describe_log_groups(logGroupNamePrefix=prefix)

    assert len(answer["logGroups"]) > 5
    assert {group.get("kmsKeyId") for group in answer["logGroups"]} == {key_arn}


def test_users_have_their_groups_and_nobody_adds_himself(fleet: Stack) -> None:
    cognito, pool = client(fleet, "cognito-idp"), fleet.outputs["UserPoolId"]

    groups = {group["GroupName"] for group in cognito.list_groups(UserPoolId=pool)["Groups"]}
    described = cognito.describe_user_pool(UserPoolId=pool)["UserPool"]

    assert groups == {f"synapse/{scope}" for scope in Scope}
    assert described["AdminCreateUserConfig"]["AllowAdminCreateUserOnly"]
    assert fleet.environment("authorize")["SYNAPSE_OIDC_ISSUER"].endswith(pool)
    client_id = fleet.outputs["UserPoolClientId"]
    assert fleet.environment("api")["SYNAPSE_COGNITO_CLIENT_ID"] == client_id


def test_a_page_of_the_named_origin_may_read_the_answer_and_no_other(fleet: Stack) -> None:
    key = fleet.new_key()

    answer = fleet.call("GET", "/v1/models", api_key=key, headers={"Origin": PAGE})

    assert answer.status == 200, answer.body
    assert answer.headers["access-control-allow-origin"] == PAGE
    other = fleet.call("GET", "/v1/models", api_key=key, headers={"Origin": "https://evil.com"})
    assert other.status == 200
    assert "access-control-allow-origin" not in other.headers


def test_no_function_knows_a_secret_of_it(fleet: Stack) -> None:
    for function in ("api", "authorize"):
        assert "secret" not in json.dumps(fleet.environment(function)).lower()
