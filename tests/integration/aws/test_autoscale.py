"""The autoscaler over AWS's adapters: an ECS service from no task to one and back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import boto3
import pytest

from synapse.adapters.aws.capacity import AwsCapacity
from synapse.adapters.aws.demand import DynamoDemand, DynamoStartTimes
from synapse.adapters.aws.in_flight import DynamoInFlight
from synapse.adapters.aws.jobs import DynamoJobStore
from synapse.adapters.aws.open_jobs import OpenJobs
from synapse.adapters.aws.profiles import DynamoProfileStore
from synapse.adapters.aws.registry import DynamoRegistry
from synapse.adapters.aws.workers import DynamoWorkerRegistry
from synapse.application.autoscale import Autoscaler
from synapse.application.fleet import Fleet
from synapse.domain.job import JobState, Lease, SlaTier
from synapse.domain.pool import Pool
from tests.aws import NO_RETRIES, REGION, Aws
from tests.factories import a_job, a_model, a_pool, a_worker, an_outcome
from tests.fakes import FakeClock, RecordingTelemetry, ScriptedEngine

if TYPE_CHECKING:
    from mypy_boto3_ecs.client import ECSClient

SERVICE = f"arn:aws:ecs:{REGION}:123456789012:service/workers/gpu"
POOL = a_pool(
    "gpu-ecs",
    accelerator="gpu",
    endpoint="",
    min_workers=0,
    max_workers=4,
    idle_after_s=300.0,
    startup_s=60.0,
)


class Deployment:
    """One ECS pool, and the autoscaler as the scale function wires it."""

    def __init__(self, cloud: Aws, clock: FakeClock, pool: Pool = POOL) -> None:
        dynamodb, table = cloud.dynamodb, cloud.registry_table
        self.clock = clock
        self.jobs = DynamoJobStore(dynamodb, cloud.jobs_table, clock=clock)
        self.workers = DynamoWorkerRegistry(dynamodb, table)
        self.starts = DynamoStartTimes(dynamodb, table, clock=clock)
        self.ecs: ECSClient = boto3.client("ecs", config=NO_RETRIES)
        self.ecs.create_cluster(clusterName="workers")
        self.ecs.register_task_definition(
            family="worker", containerDefinitions=[{"name": "worker", "image": "i", "memory": 100}]
        )
        self.ecs.create_service(
            cluster="workers", serviceName="gpu", taskDefinition="worker", desiredCount=0
        )
        registry = DynamoRegistry(dynamodb, table, [a_model("echo")], [pool], clock=clock)
        self.demand = DynamoDemand(OpenJobs(dynamodb, cloud.jobs_table), registry)
        fleet = Fleet.over(
            ScriptedEngine(),
            registry,
            self.workers,
            DynamoProfileStore(dynamodb, table),
            DynamoInFlight(dynamodb, table, clock=clock),
            clock,
            fresh_s=0.0,
        )
        functions = boto3.client("lambda", config=NO_RETRIES)
        arns = {pool.name: SERVICE}
        self.scaler = Autoscaler(
            registry,
            self.workers,
            AwsCapacity(self.ecs, functions, arns, self.workers, clock=clock),
            self.demand,
            self.starts,
            fleet.routing.views,
            RecordingTelemetry(),
            clock,
        )

    async def round(self, after_s: float = 0.0) -> int:
        """The service's desired count after a round."""
        self.clock.advance(after_s)
        await self.scaler.run()
        [service] = self.ecs.describe_services(cluster="workers", services=[SERVICE])["services"]
        return service["desiredCount"]

    async def beat(self) -> None:
        """The one worker is up."""
        now = self.clock()
        await self.workers.beat(a_worker("w-1", POOL.name, beat_at=now, lease_until=now + 60))


@pytest.fixture
def deployment(cloud: Aws, clock: FakeClock) -> Deployment:
    return Deployment(cloud, clock)


async def test_a_waiting_job_starts_a_task_and_idle_time_ends_it(deployment: Deployment) -> None:
    d = deployment
    at_first = await d.round()
    job = a_job(sla=SlaTier.SILVER)
    await d.jobs.create(job)
    with_work = await d.round()
    d.clock.advance(90.0)
    await d.beat()
    await d.round()
    await d.jobs.claim([job.id], Lease("b", d.clock() + 600), d.clock())
    await d.jobs.settle(an_outcome(job.id, JobState.COMPLETED), "b", d.clock())
    still_warm = await d.round(299.0)
    await d.beat()
    idle = await d.round(2.0)

    assert (at_first, with_work, still_warm, idle) == (0, 1, 1, 0)
    assert await d.starts.startup_s(POOL.name) == pytest.approx(90.0)


async def test_who_is_woken_starts_a_task_for_what_no_index_shows_yet(
    deployment: Deployment,
) -> None:
    deployment.demand.woken("echo", SlaTier.GOLD, deployment.clock())

    assert await deployment.round() == 1
