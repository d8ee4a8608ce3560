"""A pool at zero is started for the profiler: from its state machine's step to the ECS service."""

from __future__ import annotations

import json
from typing import Any

import boto3
import pytest

from functions.profile import handler as profile
from functions.scale import handler as scale
from synapse.aws_fleet import FleetTarget
from synapse.settings import Settings
from tests.aws import NO_RETRIES, REGION, Aws, Call, intercepted
from tests.lambda_context import a_context

SCALER = f"arn:aws:lambda:{REGION}:123456789012:function:scale:live"
POOLS = [
    {
        "name": name,
        "accelerator": "gpu",
        "pricePerHour": price,
        "max": 1,
        "capacity": f"arn:aws:ecs:{REGION}:123456789012:service/workers/{name}",
    }
    for name, price in (("cheap", 0.1), ("gpu-ecs", 0.9))
]
CONTEXT = a_context("profile", SCALER, left_ms=5_000)


def test_the_very_pool_that_is_to_be_measured_is_started(
    cloud: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    target, sent = FleetTarget(settings(cloud)), list[Any]()
    for function in (profile, scale):
        monkeypatch.setattr(function, "fleet_target", lambda: target)
    ecs = services()

    def around(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        sent.append(arguments)
        return {}

    with intercepted(target.parts.waker._functions, around):
        profile.handler({"step": "wake", "pool": "gpu-ecs"}, CONTEXT)
    [invoked] = sent
    scale.handler(json.loads(invoked["Payload"]), CONTEXT)

    assert invoked["FunctionName"] == SCALER
    found = ecs.describe_services(cluster="workers", services=["cheap", "gpu-ecs"])["services"]
    assert {each["serviceName"]: each["desiredCount"] for each in found} == {
        "cheap": 0,
        "gpu-ecs": 1,
    }


def settings(cloud: Aws) -> Settings:
    return Settings.load(cloud.environ(SYNAPSE_SCALER_ARN=SCALER, SYNAPSE_POOLS=json.dumps(POOLS)))


def services() -> Any:
    ecs: Any = boto3.client("ecs", config=NO_RETRIES)
    ecs.create_cluster(clusterName="workers")
    ecs.register_task_definition(
        family="worker", containerDefinitions=[{"name": "worker", "image": "i", "memory": 100}]
    )
    for pool in POOLS:
        ecs.create_service(
            cluster="workers", serviceName=pool["name"], taskDefinition="worker", desiredCount=0
        )
    return ecs
