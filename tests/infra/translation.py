"""What CloudFormation makes of the template: SAM's own translator, run offline."""

from __future__ import annotations

import copy
import os
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).resolve().parents[2]
TEMPLATE = ROOT / "template.yaml"
MONITORING = ROOT / "infra" / "monitoring.yaml"
LOCAL_PATHS = ("CodeUri", "ContentUri", "Location")

Template = dict[str, Any]
Resource = dict[str, Any]


def read(path: Path) -> Template:
    """The template as it is written; who asks may change it."""
    return copy.deepcopy(_parsed(path))


@cache
def _parsed(path: Path) -> Template:
    template: Template = yaml_parse(path.read_text())
    return template


@cache
def translated(path: Path = TEMPLATE) -> Template:
    return translate(read(path))


def translate(template: Template) -> Template:
    """As after `sam deploy` has packaged it: local paths are replaced by addresses in S3."""
    # Two seconds of imports, for the few that ask for a translation.
    from samtranslator.public.translator import ManagedPolicyLoader
    from samtranslator.translator.transform import transform

    for name, resource in template["Resources"].items():
        properties = resource.get("Properties", {})
        for key in LOCAL_PATHS:
            if key in properties and not str(properties[key]).startswith("s3://"):
                properties[key] = f"s3://bucket/{name}"
        if "DefinitionUri" in properties:
            properties["DefinitionUri"] = {"Bucket": "bucket", "Key": name}
    template["Transform"] = "AWS::Serverless-2016-10-31"
    defaults = {
        name: parameter["Default"]
        for name, parameter in template["Parameters"].items()
        if "Default" in parameter
    }
    with patch.dict(os.environ, {"AWS_DEFAULT_REGION": "us-east-1"}):
        managed = ManagedPolicyLoader(None)
        managed._policy_map = _ManagedPolicies()
        return transform(template, defaults, managed)  # type: ignore[no-any-return]


class _ManagedPolicies(dict[str, str]):
    """Every managed policy's ARN by its name, without asking IAM."""

    def get(self, name: str, default: Any = None) -> Any:
        return f"arn:aws:iam::aws:policy/{name}"


def of_type(template: Template, kind: str) -> dict[str, Resource]:
    return {name: r for name, r in template["Resources"].items() if r["Type"] == kind}


def statements(holder: Resource) -> Iterator[Resource]:
    """What a role's own policies allow, or a policy apart; the conditional statements too."""
    properties = holder["Properties"]
    policies = [properties] if "PolicyDocument" in properties else properties.get("Policies", [])
    for policy in policies:
        for statement in policy["PolicyDocument"]["Statement"]:
            yield from _alternatives(statement)


def _alternatives(value: Resource) -> Iterator[Resource]:
    if "Fn::If" in value:
        for branch in value["Fn::If"][1:]:
            yield from _alternatives(branch)
    elif value != {"Ref": "AWS::NoValue"}:
        yield value


def gateway_responses(template: Template) -> dict[str, dict[str, Any]]:
    """The customised gateway responses, as arguments of `put_gateway_response`."""
    (api,) = of_type(template, "AWS::ApiGateway::RestApi").values()
    responses = api["Properties"]["Body"]["x-amazon-apigateway-gateway-responses"]
    return {kind: dict(_response_arguments(response)) for kind, response in responses.items()}


def _response_arguments(response: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key in ("statusCode", "responseParameters", "responseTemplates"):
        if key in response:
            yield key, str(response[key]) if key == "statusCode" else response[key]
