"""AwsCapacity: an ECS service's desired count (moto) and a managed function's floor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws

from synapse.adapters.aws.capacity import AwsCapacity
from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.domain.errors import Unavailable
from synapse.domain.pool import PoolSize
from synapse.domain.worker import WorkerState
from tests.aws import NO_RETRIES, REGION, Call, intercepted
from tests.factories import NOW, a_pool, a_worker
from tests.fakes import FakeClock
from tests.integration.aws.faults import client_error, failing

if TYPE_CHECKING:
    from mypy_boto3_ecs.client import ECSClient
    from mypy_boto3_lambda.client import LambdaClient

ECS_POOL = a_pool("gpu-ecs", accelerator="gpu", min_workers=0, max_workers=4)
LAMBDA_POOL = a_pool("gpu", accelerator="gpu", min_workers=0, max_workers=3)
FUNCTION = f"arn:aws:lambda:{REGION}:123456789012:function:runner"


@pytest.fixture
def ecs() -> Iterator[ECSClient]:
    with mock_aws():
        client = boto3.client("ecs", config=NO_RETRIES)
        client.create_cluster(clusterName="workers")
        client.register_task_definition(
            family="worker", containerDefinitions=[{"name": "worker", "image": "i", "memory": 100}]
        )
        client.create_service(
            cluster="workers", serviceName="gpu", taskDefinition="worker", desiredCount=0
        )
        yield client


@pytest.fixture
def functions() -> LambdaClient:
    return boto3.client("lambda", config=NO_RETRIES)


@pytest.fixture
def workers() -> LocalWorkerRegistry:
    return LocalWorkerRegistry()


@pytest.fixture
def capacity(ecs: ECSClient, functions: LambdaClient, workers: LocalWorkerRegistry) -> AwsCapacity:
    arns = {
        "gpu-ecs": f"arn:aws:ecs:{REGION}:123456789012:service/workers/gpu",
        "gpu": f"{FUNCTION}:$LATEST.PUBLISHED",
    }
    return AwsCapacity(ecs, functions, arns, workers, clock=FakeClock(NOW))


async def test_a_pool_of_tasks_starts_at_nothing(capacity: AwsCapacity) -> None:
    assert await capacity.size(ECS_POOL) == PoolSize(desired=0, ready=0, starting=0)


async def test_tasks_count_as_starting_until_their_workers_answer(
    capacity: AwsCapacity, workers: LocalWorkerRegistry
) -> None:
    await capacity.resize(ECS_POOL, 3)
    at_first = await capacity.size(ECS_POOL)
    await workers.beat(a_worker("w-1", "gpu-ecs", lease_until=NOW + 9))
    await workers.beat(
        a_worker("w-2", "gpu-ecs", lease_until=NOW + 9, state=WorkerState.LOADING, models=())
    )
    await workers.beat(a_worker("w-3", "gpu-ecs", lease_until=NOW + 9, state=WorkerState.DEGRADED))
    await workers.beat(a_worker("w-4", "another", lease_until=NOW + 9))

    assert at_first == PoolSize(desired=3, ready=0, starting=3)
    assert await capacity.size(ECS_POOL) == PoolSize(desired=3, ready=1, starting=2)


async def test_a_pool_goes_back_to_nothing(capacity: AwsCapacity, ecs: ECSClient) -> None:
    await capacity.resize(ECS_POOL, 2)
    await capacity.resize(ECS_POOL, 0)

    (service,) = ecs.describe_services(cluster="workers", services=["gpu"])["services"]
    assert service["desiredCount"] == 0
    assert await capacity.size(ECS_POOL) == PoolSize(desired=0, ready=0, starting=0)


async def test_tasks_that_are_on_their_way_out_are_not_starting(
    capacity: AwsCapacity, ecs: ECSClient
) -> None:
    def draining(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        service = {"desiredCount": 1, "runningCount": 4, "pendingCount": 0}
        return {"services": [service]}

    with intercepted(ecs, draining):
        assert await capacity.size(ECS_POOL) == PoolSize(desired=1, ready=0, starting=1)


async def test_a_managed_function_is_given_a_floor_and_the_pools_ceiling(
    capacity: AwsCapacity, functions: LambdaClient
) -> None:
    asked: dict[str, Any] = {}

    def scaling(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        if operation == "PutFunctionScalingConfig":
            asked.update(arguments)
            return {}
        assert operation == "GetFunctionScalingConfig"
        assert arguments == {key: asked[key] for key in ("FunctionName", "Qualifier")}
        return {"RequestedFunctionScalingConfig": asked["FunctionScalingConfig"]}

    with intercepted(functions, scaling):
        await capacity.resize(LAMBDA_POOL, 2)
        size = await capacity.size(LAMBDA_POOL)

    assert asked["FunctionName"] == FUNCTION
    assert asked["Qualifier"] == "$LATEST.PUBLISHED"
    assert asked["FunctionScalingConfig"] == {
        "MinExecutionEnvironments": 2,
        "MaxExecutionEnvironments": 3,
    }
    assert size == PoolSize(desired=2, ready=0, starting=2)


async def test_what_aws_does_not_do_for_now_is_unavailable(
    capacity: AwsCapacity, ecs: ECSClient
) -> None:
    throttled = client_error("ThrottlingException", "UpdateService")
    with failing(ecs, throttled), pytest.raises(Unavailable):
        await capacity.resize(ECS_POOL, 1)
    broken = client_error("ServerException", "DescribeServices", 500)
    with failing(ecs, broken), pytest.raises(Unavailable):
        await capacity.size(ECS_POOL)


async def test_a_right_that_is_missing_is_that_pools_trouble_alone(
    capacity: AwsCapacity, ecs: ECSClient
) -> None:
    refused = client_error("AccessDeniedException", "UpdateService")

    with failing(ecs, refused), pytest.raises(Unavailable, match="AccessDenied"):
        await capacity.resize(ECS_POOL, 1)


async def test_a_service_that_is_gone_is_unavailable(capacity: AwsCapacity, ecs: ECSClient) -> None:
    gone = intercepted(ecs, lambda call, operation, arguments: {"services": []})

    with gone, pytest.raises(Unavailable, match="no service"):
        await capacity.size(ECS_POOL)


async def test_a_pool_that_lambda_sizes_by_itself_has_no_size(capacity: AwsCapacity) -> None:
    with pytest.raises(Unavailable, match="'cpu'"):
        await capacity.resize(a_pool("cpu"), 1)
