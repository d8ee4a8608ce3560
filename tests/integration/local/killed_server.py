"""A process that lives on the store as a server does, and is killed in the middle of it.

It says on standard output what it was told: "created", "keyed", "settled" or "cancelled" and the
job's id, one line each, written only after the store had answered.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
import time
from pathlib import Path

from synapse.adapters.local.database import Database
from synapse.adapters.local.job_store import SqliteJobStore
from synapse.domain.job import JobId, JobState, Lease, Outcome, Payload
from synapse.domain.sweep import SweepPolicy
from synapse.ports import Idempotency
from tests.factories import a_job

LANES = 24
NEVER_SPENT = SweepPolicy(max_losses=1_000_000)


def say(what: str, job_id: JobId) -> None:
    os.write(1, f"{what} {job_id}\n".encode())


async def finish(store: SqliteJobStore, chance: random.Random, job_id: JobId) -> None:
    """Run a job to its end, by one way or another."""
    owner = f"{os.getpid()}-{chance.random()}"
    claimed = await store.claim([job_id], Lease(owner, time.time() + 600), time.time())
    if not claimed:
        return
    await asyncio.sleep(chance.random() * 0.01)
    if chance.random() < 0.1:
        if await store.close(job_id, JobState.CANCELLED, None, time.time()):
            say("cancelled", job_id)
        return
    outcome = Outcome(job_id, JobState.COMPLETED, result=Payload(inline=owner))
    if await store.settle(outcome, owner, time.time()):
        say("settled", job_id)
    if await store.settle(outcome, owner, time.time()):
        say("settled", job_id)


async def lane(store: SqliteJobStore, chance: random.Random, leave: float) -> None:
    while True:
        now = time.time()
        job = a_job(created_at=now, payload=Payload(inline="x" * chance.randrange(3000)))
        if chance.random() < 0.2:
            # The key is the job's own id, so that whoever reads the records can ask again.
            await store.create(job, Idempotency(job.id, "fingerprint"))
            say("keyed", job.id)
        elif chance.random() < 0.5:
            await store.create(job)
            say("created", job.id)
        else:
            # As a submitter does: it may be run, and even end, before it is known to be recorded.
            async with store.recording(job):
                running = asyncio.create_task(finish(store, chance, job.id))
            say("created", job.id)
            await running
        if chance.random() > leave:
            await finish(store, chance, job.id)


async def main(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    store = SqliteJobStore(Database.open(path), time.time)
    await store.recover(time.time(), NEVER_SPENT)
    os.write(1, b"ready -\n")
    old = [job async for jobs in store.queued(100) for job in jobs]
    async with asyncio.TaskGroup() as lanes:
        for job in old[: len(old) // 2]:
            lanes.create_task(finish(store, chance, job.id))
        for _ in range(LANES):
            lanes.create_task(lane(store, chance, leave=0.3))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
