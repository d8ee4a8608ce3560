"""What MiniStack's CloudFormation lacks; run by MiniStack's own Python.

Three kinds of resources. Capacity providers of ECS, and which cluster has them, its ECS knows:
CloudFormation is joined to it here, and what a provider says of managed instances, which its ECS
leaves out, is kept. Capacity providers of Lambda it does not know at all: such a one is a name and
an ARN. And conditions that join a list: MiniStack compares the expression itself, unresolved.
"""

from __future__ import annotations

import json
from typing import Any

from ministack.core.responses import (  # type: ignore[import-not-found]
    get_account_id,
    get_region,
    new_uuid,
)
from ministack.services import ecs  # type: ignore[import-not-found]
from ministack.services.cloudformation import (  # type: ignore[import-not-found]
    changesets,
    engine,
    handlers,
    provisioners,
    stacks,
)

_evaluate = engine._evaluate_conditions

Created = tuple[str, dict[str, Any]]


def create_ecs_provider(logical_id: str, properties: dict[str, Any], stack: str) -> Created:
    name = f"{stack}-{logical_id}-{new_uuid()[:12]}"
    answer = _answered(ecs._create_capacity_provider({"name": name}))["capacityProvider"]
    provider = ecs._capacity_providers[name]
    del provider["autoScalingGroupProvider"]
    provider["cluster"] = properties["ClusterName"]
    provider["managedInstancesProvider"] = provisioners._pascal_to_camel(
        properties["ManagedInstancesProvider"]
    )
    return name, {"Arn": answer["capacityProviderArn"]}


def delete_ecs_provider(physical_id: str, properties: dict[str, Any]) -> None:
    ecs._delete_capacity_provider({"capacityProvider": physical_id})


def associate(logical_id: str, properties: dict[str, Any], stack: str) -> Created:
    cluster = properties["Cluster"]
    _answered(
        ecs._put_cluster_capacity_providers(
            {"cluster": cluster, "capacityProviders": properties["CapacityProviders"]}
        )
    )
    return cluster, {}


def dissociate(physical_id: str, properties: dict[str, Any]) -> None:
    ecs._put_cluster_capacity_providers({"cluster": physical_id})


def create_lambda_provider(logical_id: str, properties: dict[str, Any], stack: str) -> Created:
    name = f"{stack}-{logical_id}-{new_uuid()[:12]}"
    arn = f"arn:aws:lambda:{get_region()}:{get_account_id()}:capacity-provider:{name}"
    return name, {"Arn": arn}


def forget(physical_id: str, properties: dict[str, Any]) -> None:
    """There is nothing to delete."""


def evaluate_conditions(template: dict[str, Any], parameters: dict[str, Any]) -> Any:
    conditions = joined(template.get("Conditions", {}), parameters)
    return _evaluate({**template, "Conditions": conditions}, parameters)


def joined(value: Any, parameters: dict[str, Any]) -> Any:
    """The value with each `Fn::Join` of a list parameter replaced by the text it makes."""
    if isinstance(value, list):
        return [joined(each, parameters) for each in value]
    if not isinstance(value, dict):
        return value
    if "Fn::Join" in value:
        separator, listed = value["Fn::Join"]
        return separator.join(str(parameters[listed["Ref"]]["Value"]).split(","))
    return {key: joined(each, parameters) for key, each in value.items()}


def _answered(response: tuple[int, Any, Any]) -> dict[str, Any]:
    status, _, body = response
    if status >= 400:
        raise ValueError(f"ECS: {body!r}")
    answer: dict[str, Any] = json.loads(body)
    return answer


def register() -> None:
    """Put all this into MiniStack."""
    for module in (changesets, engine, handlers, stacks):
        module._evaluate_conditions = evaluate_conditions
    provisioners._RESOURCE_HANDLERS.update(
        {
            "AWS::ECS::CapacityProvider": {
                "create": create_ecs_provider,
                "delete": delete_ecs_provider,
            },
            "AWS::ECS::ClusterCapacityProviderAssociations": {
                "create": associate,
                "delete": dissociate,
            },
            "AWS::Lambda::CapacityProvider": {"create": create_lambda_provider, "delete": forget},
        }
    )
