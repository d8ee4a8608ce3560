"""The chat function: streamed at AWS, whole where there is no web adapter, with few rights."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.infra.translation import ROOT, TEMPLATE, Resource, of_type, read, statements, translated

ROUTES = ["/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses"]
LONGEST_STREAM_S = 900


def chat() -> Resource:
    properties: Resource = translated()["Resources"]["ChatFunction"]["Properties"]
    return properties


def integrations() -> dict[str, dict[str, Any]]:
    """Of every route that asks the chat function, by path."""
    (api,) = of_type(translated(), "AWS::ApiGateway::RestApi").values()
    found = {
        path: operation["x-amazon-apigateway-integration"]
        for path, operations in api["Properties"]["Body"]["paths"].items()
        for method, operation in operations.items()
        if method != "options"
    }
    return {path: each for path, each in found.items() if "ChatFunction" in str(each["uri"])}


def test_every_route_of_the_function_streams_because_the_adapter_knows_nothing_else() -> None:
    found = integrations()

    assert sorted(found) == ROUTES
    for integration in found.values():
        assert integration["responseTransferMode"] == "STREAM"
        assert "/response-streaming-invocations" in str(integration["uri"])


def test_api_gateway_waits_as_long_as_the_function_may_run() -> None:
    assert chat()["Timeout"] == LONGEST_STREAM_S
    for integration in integrations().values():
        assert integration["timeoutInMillis"] == 1000 * LONGEST_STREAM_S


def test_nothing_of_the_adapter_is_there_without_its_layer() -> None:
    layers = [layer["Fn::If"] for layer in chat()["Layers"] if "Fn::If" in layer]
    variables = chat()["Environment"]["Variables"]
    adapters = {name: v for name, v in variables.items() if name.startswith(("AWS_LWA", "AWS_LAM"))}

    assert [layer[0] for layer in layers] == ["Streams"]
    assert layers[0][2] == {"Ref": "AWS::NoValue"}
    assert "AWS_LAMBDA_EXEC_WRAPPER" in adapters
    for value in adapters.values():
        assert value["Fn::If"][0] == "Streams"
        assert value["Fn::If"][2] == {"Ref": "AWS::NoValue"}
    assert chat()["Handler"]["Fn::If"] == ["Streams", "run.sh", "handler.handler"]


def test_only_an_emulator_does_not_stream() -> None:
    conditions = read(TEMPLATE)["Conditions"]

    assert conditions["Streams"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "Stage"}, "local"]}]}


def test_what_the_adapter_starts_can_be_started() -> None:
    assert os.access(ROOT / "functions" / "chat" / "run.sh", os.X_OK)


@pytest.mark.parametrize(
    ("resource", "actions"),
    [
        ("RegistryTable", {"dynamodb:GetItem", "dynamodb:Query", "dynamodb:UpdateItem"}),
        ("${BlobBucket.Arn}/cache/*", {"s3:GetObject", "s3:PutObject"}),
        ("BlobBucket", {"s3:ListBucket"}),
    ],
)
def test_it_may_count_measure_and_cache(resource: str, actions: set[str]) -> None:
    assert rights()[resource] == actions


def test_it_may_touch_no_job_no_queue_and_no_file() -> None:
    scaler = "ScaleFunctionAliaslive"
    cache = {"${BlobBucket.Arn}/cache/*", "BlobBucket"}
    assert set(rights()) == {"RegistryTable", "AccessTable", *cache, scaler}
    assert rights()[scaler] == {"lambda:InvokeFunction"}


def rights() -> dict[str, set[str]]:
    """What the function's own policy lets it do, by resource."""
    role = translated()["Resources"]["ChatFunctionRole"]
    return {
        named(statement["Resource"]): set(statement["Action"])
        if isinstance(statement["Action"], list)
        else {statement["Action"]}
        for statement in statements(role)
    }


def named(resource: dict[str, Any]) -> str:
    if "Fn::GetAtt" in resource:
        return str(resource["Fn::GetAtt"][0])
    if "Ref" in resource:
        return str(resource["Ref"])
    return str(resource["Fn::Sub"])
