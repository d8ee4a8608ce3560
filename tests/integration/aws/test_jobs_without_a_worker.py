"""Jobs that come when no worker is up, or none has a slot: they wait, and are seen to wait."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from synapse.aws_fleet import FleetTarget
from synapse.domain.errors import EngineUnavailable
from synapse.domain.job import Job, JobId, JobState, SlaTier
from synapse.settings import Settings
from tests.aws import REGION, Aws, Call, intercepted
from tests.factories import a_batch, a_job

AT_ZERO = {"name": "gpu-ecs", "accelerator": "gpu", "max": 2}
FULL = {"name": "primary", "accelerator": "gpu", "endpoint": "127.0.0.1:1"}
SLOTS = 1024


@pytest.fixture(params=[AT_ZERO, FULL], ids=["at zero", "full"])
def target(
    request: pytest.FixtureRequest, cloud: Aws, monkeypatch: pytest.MonkeyPatch
) -> FleetTarget:
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    environ = cloud.environ(SYNAPSE_POOLS=json.dumps([request.param]))
    made = FleetTarget(Settings.load(environ))
    monkeypatch.setitem(made.parts.__dict__, "_dynamodb", cloud.dynamodb)
    return made


async def tried(target: FleetTarget, cloud: Aws, count: int) -> list[tuple[str, str]]:
    """Runs a batch of new jobs in the pool, which takes none; what is written, and where."""
    now, written = time.time(), list[tuple[str, str]]()
    [pool] = target.settings.pools
    jobs = [
        a_job(
            id=JobId(f"job-{n}"),
            sla=SlaTier.BRONZE,
            created_at=now,
            sent_at=now,
            deadline_at=now + 600,
        )
        for n in range(count)
    ]
    for job in jobs:
        await target.parts.jobs.create(job)
    await target.parts.in_flight.enter("echo", pool.name, SLOTS, SLOTS, now + 600, SlaTier.BRONZE)

    def around(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        if operation not in ("GetItem", "Query"):
            written.append((operation, arguments["TableName"]))
        return call(operation, arguments)

    batch = a_batch(*(job.id for job in jobs))
    with intercepted(cloud.dynamodb, around), pytest.raises(EngineUnavailable):
        await target.run_batch(batch, pool.name, 110.0)
    return written


async def test_a_batch_that_nobody_takes_writes_nothing(target: FleetTarget, cloud: Aws) -> None:
    """It comes round every few seconds until a worker is up, or a slot free."""
    assert await tried(target, cloud, 3) == []


async def test_its_jobs_are_waiting_for_callers_and_for_the_autoscaler(
    target: FleetTarget, cloud: Aws
) -> None:
    await tried(target, cloud, 3)

    job: Job | None = await target.parts.jobs.get(JobId("job-0"))

    assert job is not None and job.state is JobState.QUEUED
    [demand] = await target.parts.demand.demand(time.time())
    assert demand.tiers[SlaTier.BRONZE].queued == 3
