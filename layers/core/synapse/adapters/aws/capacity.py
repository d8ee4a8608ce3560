"""The size of pools: the desired count of an ECS service, the floor of a managed Lambda function.

A pool's capacity is an ARN (`Settings.capacities`). A pool without one, a Lambda function of the
ordinary kind, has no size: Lambda makes its environments as calls come in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import call, unavailable
from synapse.domain.errors import Unavailable
from synapse.domain.pool import Pool, PoolSize
from synapse.domain.worker import WorkerState
from synapse.ports import Clock, WorkerRegistry

if TYPE_CHECKING:
    from mypy_boto3_ecs.client import ECSClient
    from mypy_boto3_lambda.client import LambdaClient


R = TypeVar("R")


class AwsCapacity:
    """The Capacity of the AWS target. What answers is known from heartbeats, not from AWS."""

    def __init__(
        self,
        ecs: ECSClient,
        functions: LambdaClient,
        capacities: Mapping[str, str],
        workers: WorkerRegistry,
        *,
        clock: Clock = time.time,
    ) -> None:
        self._ecs = ecs
        self._functions = functions
        self._capacities = capacities
        self._workers = workers
        self._clock = clock

    async def size(self, pool: Pool) -> PoolSize:
        """See the port."""
        arn = self._arn(pool)
        if _service(arn) == "ecs":
            desired, placed = await self._tasks(arn)
        else:
            desired, placed = await self._environments(arn)
        workers = [w for w in await self._workers.workers(self._clock()) if w.pool == pool.name]
        ready = sum(
            not worker.is_starting() and worker.state is not WorkerState.DEGRADED
            for worker in workers
        )
        return PoolSize(desired, ready, max(0, placed - ready))

    async def resize(self, pool: Pool, desired: int) -> None:
        """See the port. ECS and Lambda send SIGTERM to what goes, upon which it drains."""
        arn = self._arn(pool)
        if _service(arn) == "ecs":
            await _asked(
                self._ecs.update_service,
                cluster=_cluster(arn),
                service=arn,
                desiredCount=desired,
            )
            return
        function, _, qualifier = arn.rpartition(":")
        await _asked(
            self._functions.put_function_scaling_config,
            FunctionName=function,
            Qualifier=qualifier,
            # Above the floor Lambda adds environments by itself, while calls keep them busy.
            FunctionScalingConfig={
                "MinExecutionEnvironments": desired,
                "MaxExecutionEnvironments": max(1, pool.max_workers),
            },
        )

    async def _tasks(self, arn: str) -> tuple[int, int]:
        answer = await _asked(self._ecs.describe_services, cluster=_cluster(arn), services=[arn])
        if not answer["services"]:
            raise Unavailable(f"there is no service {arn}")
        (service,) = answer["services"]
        placed = service["runningCount"] + service["pendingCount"]
        return service["desiredCount"], min(placed, service["desiredCount"])

    async def _environments(self, arn: str) -> tuple[int, int]:
        """What was asked for; how much of it is there, Lambda does not tell."""
        function, _, qualifier = arn.rpartition(":")
        answer = await _asked(
            self._functions.get_function_scaling_config, FunctionName=function, Qualifier=qualifier
        )
        asked = answer.get("RequestedFunctionScalingConfig") or answer.get(
            "AppliedFunctionScalingConfig", {}
        )
        desired = asked.get("MinExecutionEnvironments", 0)
        return desired, desired

    def _arn(self, pool: Pool) -> str:
        arn = self._capacities.get(pool.name)
        if arn is None:
            raise Unavailable(f"pool {pool.name!r} has nothing that could be started or stopped")
        return arn


async def _asked(operation: Callable[..., R], **arguments: Any) -> R:
    """What AWS answers; a refusal is this pool's trouble alone, and the others are still sized.

    Raises:
        Unavailable: AWS could not be reached, or refused.
    """
    try:
        return await call(operation, **arguments)
    except ClientError as error:
        raise unavailable(error) from error


def _service(arn: str) -> str:
    """`ecs` or `lambda`: the third part of an ARN."""
    return arn.split(":")[2]


def _cluster(arn: str) -> str:
    """The cluster's name: `arn:aws:ecs:<region>:<account>:service/<cluster>/<service>`."""
    return arn.split("/")[1]
