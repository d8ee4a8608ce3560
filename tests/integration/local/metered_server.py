"""A process that counts jobs as a server does, and is killed in the middle of it."""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

from synapse.adapters.local.database import Database
from synapse.adapters.local.job_store import SqliteJobStore
from synapse.adapters.local.meter import SqliteMeter
from synapse.application.metered_jobs import MeteredJobs
from synapse.application.metering import Ask, Metering
from synapse.domain.access import Limits, Principal
from synapse.domain.inference import ModelInput
from synapse.domain.job import Job, JobState, Lease, Outcome, Served, SlaTier
from synapse.domain.metering import NANO
from synapse.domain.routing import Need, PoolView
from synapse.domain.sweep import SweepPolicy
from tests.factories import a_job, a_model, a_pool

LANES = 24
RESERVED_NANO = 1000
CALLER = Principal("acme", "key1", limits=Limits(monthly_usd=1e9, concurrent_jobs=10_000))
NEVER_SPENT = SweepPolicy(max_losses=1_000_000)


async def views(spec: object, tier: object) -> list[PoolView]:
    pool = a_pool(price_per_hour_usd=RESERVED_NANO / NANO * 3600 / 600)
    return [PoolView(pool, slots=1, ready=1)]


async def counted(metering: Metering, jobs: MeteredJobs, job: Job) -> None:
    """Record a job as `Submitter` does."""
    value = ModelInput("hello", parameters={"max_tokens": 5})
    ask = Ask(CALLER, a_model(), value, Need(SlaTier.BRONZE), 3600.0)
    ticket = await metering.admit_job(ask, job.id, job.deadline_at)
    try:
        await jobs.create(replace(job, metered=True))
    except BaseException:
        await metering.forget(ticket)
        raise


async def lane(metering: Metering, jobs: MeteredJobs, chance: random.Random) -> None:
    while True:
        job = a_job(created_at=time.time(), tenant="acme", account="key1")
        await counted(metering, jobs, job)
        os.write(1, f"created {job.id}\n".encode())
        if chance.random() < 0.2:
            continue
        owner = f"{os.getpid()}-{job.id}"
        await jobs.claim([job.id], Lease(owner, time.time() + 600), time.time())
        await asyncio.sleep(chance.random() * 0.005)
        if chance.random() < 0.2:
            await jobs.close(job.id, JobState.CANCELLED, None, time.time())
            continue
        served = Served("cpu", "cpu", 1, active_usd=chance.randrange(RESERVED_NANO) / NANO)
        await jobs.settle(Outcome(job.id, JobState.COMPLETED, served=served), owner, time.time())


async def main(path: Path, seed: int) -> None:
    database = Database.open(path)
    store = SqliteJobStore(database, time.time)
    await store.recover(time.time(), NEVER_SPENT)
    meter = await SqliteMeter.open(database)
    metering = Metering(meter, views, time.time)
    await metering.recover(meter.left_open(), store.get)
    os.write(1, b"ready -\n")
    chance = random.Random(seed)
    async with asyncio.TaskGroup() as lanes:
        for _ in range(LANES):
            lanes.create_task(lane(metering, MeteredJobs(store, metering), chance))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
