"""Who may do what: every role, every policy of a resource, and why any of them is wide.

A wildcard, or a policy of AWS's own, needs a reason below; a reason that nothing needs any more
fails too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.infra.translation import (
    ROOT,
    TEMPLATE,
    Resource,
    Template,
    of_type,
    read,
    statements,
    translated,
)

TEMPLATES = [TEMPLATE, *sorted((ROOT / "infra").glob("*.yaml"))]

DELIVERY = "Log delivery has no resource-level permissions."
WIDE: dict[tuple[str, str, str], str] = {
    ("template.yaml", "BatcherRole", "LogDelivery"): DELIVERY,
    ("template.yaml", "FileBatcherRole", "LogDelivery"): DELIVERY,
    ("template.yaml", "ProfilerRole", "LogDelivery"): DELIVERY,
    ("pools-ecs.yaml", "ExecutionRole", "Token"): "The token of a registry is the account's.",
    ("pools-ecs.yaml", "ExecutionRole", "Image"): "The repository is part of an image's address, "
    "which is one text; who deploys says which it is.",
    ("pools-lambda.yaml", "RunnerRole", "Log"): "The groups of both pools; naming them would make "
    "a circle where a pool is off.",
}
"""Statements of roles with a wildcard that is not just the end of a path, by template and role."""

MANAGED: dict[str, str] = {
    "AWSLambdaBasicExecutionRole": "SAM gives it to each function: to write logs.",
    "AWSLambdaVPCAccessExecutionRole": "SAM gives it to each function that may be in a VPC: its "
    "network interfaces are nobody's ARN beforehand.",
    "AWSXRayDaemonWriteAccess": "Traces have no resource-level permissions.",
    "AWSXrayWriteOnlyAccess": "SAM's name of the same, for functions and state machines.",
    "AmazonAPIGatewayPushToCloudWatchLogs": "The account's role, which AWS asks to have it.",
    "AmazonECSInfrastructureRolePolicyForManagedInstances": "ECS starts and ends instances by it.",
    "AmazonECSInstanceRolePolicyForManagedInstances": "An instance joins its cluster by it.",
    "AWSLambdaManagedEC2ResourceOperator": "Lambda starts and ends instances by it.",
}
"""Policies that AWS writes and changes."""

OPEN_POLICIES: dict[tuple[str, str, str], str] = {
    ("encryption.yaml", "Key", "Account"): "As AWS asks: nobody could change the key otherwise.",
    ("encryption.yaml", "Key", "ThroughTheServices"): "Only through services whose own rights "
    "have been checked, and only for this account.",
    ("encryption.yaml", "Key", "GrantsToTheServices"): "Only DynamoDB, for a table's own use.",
}
"""Statements of resources' policies that allow something to everybody, or everything."""

HOLDERS = ("AWS::IAM::Role", "AWS::IAM::Policy")
"""What holds rights; policies of other resources say who may use those."""

PATHS = (":s3:::", "${BlobBucket.Arn}/")


def template_of(path: Any) -> Template:
    return translated() if path == TEMPLATE else read(path)


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list) else [value]


def rights() -> Iterator[tuple[tuple[str, str, str], Resource]]:
    for path in TEMPLATES:
        template = template_of(path)
        for name, holder in template["Resources"].items():
            for statement in statements(holder) if holder["Type"] in HOLDERS else ():
                # SAM names none of those that it writes.
                called = statement.get("Sid", listed(statement["Action"])[0])
                yield (path.name, name, called), statement


def is_wide(statement: Resource) -> bool:
    """Whether it names more than it could: all actions of a service, or things that it may not.

    The end of a path in a bucket (`jobs/*`) is no wildcard in this sense: the keys there are made
    up as they come.
    """
    if any("*" in action for action in listed(statement["Action"])):
        return True
    return any(has_wildcard(json.dumps(each)) for each in listed(statement["Resource"]))


def has_wildcard(resource: str) -> bool:
    if any(path in resource for path in PATHS):
        resource = resource.replace('/*"', '"')
    return "*" in resource


def test_every_wildcard_of_a_role_has_a_reason_and_every_reason_a_wildcard() -> None:
    found = dict(rights())

    assert len(found) > 50
    assert {key for key, statement in found.items() if is_wide(statement)} == set(WIDE)
    assert all(WIDE.values())


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ({"Action": "s3:*", "Resource": "arn:aws:s3:::a/jobs/*"}, True),
        ({"Action": "*", "Resource": "arn:x"}, True),
        ({"Action": ["s3:Get*"], "Resource": "arn:aws:s3:::a/jobs/*"}, True),
        ({"Action": "s3:GetObject", "Resource": "*"}, True),
        ({"Action": "s3:GetObject", "Resource": ["arn:x", "*"]}, True),
        ({"Action": "s3:GetObject", "Resource": "arn:aws:s3:::*/jobs/*"}, True),
        ({"Action": "sqs:SendMessage", "Resource": {"Fn::Sub": "arn:aws:sqs:x:1:a*"}}, True),
        ({"Action": "dynamodb:GetItem", "Resource": "arn:aws:dynamodb:x:1:table/*"}, True),
        ({"Action": "s3:GetObject", "Resource": {"Fn::Sub": "${BlobBucket.Arn}/jobs/*"}}, False),
        ({"Action": "dynamodb:GetItem", "Resource": {"Fn::GetAtt": ["T", "Arn"]}}, False),
    ],
)
def test_what_is_a_wildcard(statement: Resource, expected: bool) -> None:
    assert is_wide(statement) == expected


def test_nothing_is_allowed_by_naming_what_is_not() -> None:
    for key, statement in rights():
        assert not {"NotAction", "NotResource", "NotPrincipal"} & set(statement), key


def test_every_policy_of_awss_own_has_a_reason_and_every_reason_a_policy() -> None:
    found = {
        arn.rpartition("/")[2]
        for path in TEMPLATES
        for role in of_type(template_of(path), "AWS::IAM::Role").values()
        for arn in arns(role["Properties"].get("ManagedPolicyArns", []))
    }

    assert found == set(MANAGED)


def arns(value: Any) -> Iterator[str]:
    """The ARNs in a value, whatever conditions and joins they are wrapped in."""
    if isinstance(value, str):
        if ":policy/" in value:
            yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from arns(each)


def test_every_role_is_for_services_of_aws_alone() -> None:
    for path in TEMPLATES:
        for name, role in of_type(template_of(path), "AWS::IAM::Role").items():
            document = role["Properties"]["AssumeRolePolicyDocument"]
            for statement in document["Statement"]:
                assert set(statement["Principal"]) == {"Service"}, name
                for service in listed(statement["Principal"]["Service"]):
                    assert service.endswith(".amazonaws.com"), name


def resource_policies() -> Iterator[tuple[tuple[str, str, str], Resource]]:
    for path in TEMPLATES:
        for name, resource in template_of(path)["Resources"].items():
            for key in ("PolicyDocument", "KeyPolicy", "ResourcePolicyDocument"):
                if resource["Type"] not in HOLDERS and key in resource.get("Properties", {}):
                    for statement in resource["Properties"][key]["Statement"]:
                        yield (path.name, name, statement["Sid"]), statement


def test_a_resource_is_open_to_nobody_without_a_reason() -> None:
    found = {
        key
        for key, statement in resource_policies()
        if statement["Effect"] == "Allow"
        and (
            statement["Principal"] in ("*", {"AWS": "*"})
            or any("*" in action for action in listed(statement["Action"]))
        )
    }

    assert found == set(OPEN_POLICIES)


def test_whoever_may_use_the_key_by_its_policy_comes_through_a_service_of_this_account() -> None:
    for key, statement in resource_policies():
        if key in OPEN_POLICIES and statement["Principal"] == {"AWS": "*"}:
            equals = statement["Condition"]["StringEquals"]
            assert equals["kms:CallerAccount"] == {"Ref": "AWS::AccountId"}
            assert equals["kms:ViaService"]


@pytest.mark.parametrize("kind", ["AWS::SQS::QueuePolicy", "AWS::S3::BucketPolicy"])
def test_bucket_and_queues_are_spoken_to_over_tls_alone(kind: str) -> None:
    (policy,) = of_type(translated(), kind).values()
    (denied,) = policy["Properties"]["PolicyDocument"]["Statement"]

    assert policy["Condition"] == "HasTls"
    assert (denied["Effect"], denied["Principal"]) == ("Deny", "*")
    assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    if kind == "AWS::SQS::QueuePolicy":
        queues = of_type(translated(), "AWS::SQS::Queue")
        assert {queue["Ref"] for queue in policy["Properties"]["Queues"]} == set(queues)


def access_rights(action: str) -> dict[str, list[str]]:
    """The items of the access table that each role may do that to, by their keys' beginnings."""
    found: dict[str, list[str]] = {}
    for (_, role, _), statement in rights():
        of_access = any("AccessTable" in json.dumps(r) for r in listed(statement["Resource"]))
        if of_access and action in listed(statement["Action"]):
            condition = statement.get("Condition", {}).get("ForAllValues:StringLike", {})
            found.setdefault(role, []).extend(condition.get("dynamodb:LeadingKeys", ["*"]))
    return found


def test_only_the_api_may_make_keys() -> None:
    makers = {
        role for role, keys in access_rights("dynamodb:PutItem").items() if {"*", "key#*"} & {*keys}
    }
    changers = {
        role
        for action in ("dynamodb:UpdateItem", "dynamodb:DeleteItem")
        for role, keys in access_rights(action).items()
        if {"*", "key#*"} & {*keys}
    }

    assert makers == {"ApiFunctionRole"}
    assert changers == set()


def test_the_authorizer_reads_and_writes_nothing() -> None:
    actions = {
        action
        for (_, role, _), statement in rights()
        if role == "AuthorizeFunctionRole"
        for action in listed(statement["Action"])
    }

    assert actions == {"dynamodb:GetItem"}


def test_no_secret_is_in_the_template_or_in_a_functions_variables() -> None:
    """Whatever is secret is made at run time (keys, of which a hash is kept) or in SSM."""
    words = ("secret", "password", "passwd", "credential", "private", "apikey", "token")
    for path in TEMPLATES:
        template = template_of(path)
        for name, parameter in template.get("Parameters", {}).items():
            assert not any(word in name.lower() for word in words), (path.name, name)
            assert "NoEcho" not in parameter, (path.name, name)
        for name, function in of_type(template, "AWS::Lambda::Function").items():
            variables = function["Properties"].get("Environment", {}).get("Variables", {})
            assert not [v for v in variables if any(word in v.lower() for word in words)], name
