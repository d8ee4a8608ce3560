"""kill -9 at any moment: what was acknowledged is there, and nothing ends twice."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from synapse.adapters.local.database import Database
from synapse.adapters.local.job_store import SqliteJobStore
from synapse.domain.job import Job, JobId, JobState, Lease, Outcome
from synapse.ports import Idempotency
from tests.factories import a_job
from tests.integration.local import killed_server
from tests.integration.local.killed_server import NEVER_SPENT

ROUNDS = 6
MOST_ROUNDS = 60
"""Where the machine is busy, little may happen in those few."""

SEED = 20261121


def live_and_die(path: Path, seed: int, for_s: float) -> list[tuple[str, JobId]]:
    """What a process said from its start until it was killed `for_s` seconds after."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, killed_server.__file__, str(path), str(seed)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready -\n"
        time.sleep(for_s)
        child.kill()
        lines = child.stdout.read().decode().splitlines()
    said = [line.split() for line in lines]
    return [(what, JobId(job_id)) for what, job_id in said]


async def jobs_of(store: SqliteJobStore, ids: list[JobId]) -> dict[JobId, Job]:
    found = {job_id: await store.get(job_id) for job_id in ids}
    assert None not in found.values(), "an acknowledged job is lost"
    return {job_id: job for job_id, job in found.items() if job is not None}


async def test_nothing_acknowledged_is_lost_and_nothing_ends_twice(tmp_path: Path) -> None:
    path, chance = tmp_path / "jobs.db", random.Random(SEED)
    said: list[tuple[str, JobId]] = []
    ends: dict[JobId, Job] = {}
    for number in range(MOST_ROUNDS):
        said += live_and_die(path, SEED + number, for_s=chance.uniform(0.02, 0.5))

        database = Database.open(path)
        store = SqliteJobStore(database, time.time)
        accepted = [job_id for what, job_id in said if what in ("created", "keyed")]
        records = await jobs_of(store, accepted)
        ended = {job_id for what, job_id in said if what in ("settled", "cancelled")}
        assert all(records[job_id].state.is_final for job_id in ended & set(records))
        assert all(records[job_id] == end for job_id, end in ends.items()), "an end has changed"
        ends = {job_id: job for job_id, job in records.items() if job.state.is_final}
        await database.close()
        endings = Counter(job_id for what, job_id in said if what in ("settled", "cancelled"))
        if number + 1 >= ROUNDS and endings:
            break

    assert endings and max(endings.values()) == 1
    await check_the_last_process_finds_order(path, said)


async def check_the_last_process_finds_order(path: Path, said: list[tuple[str, JobId]]) -> None:
    database = Database.open(path)
    store = SqliteJobStore(database, time.time)
    await store.recover(time.time(), NEVER_SPENT)
    accepted = [job_id for what, job_id in said if what in ("created", "keyed")]
    records = await jobs_of(store, accepted)
    assert not [job for job in records.values() if job.state is JobState.RUNNING]

    for job_id in [job_id for what, job_id in said if what == "keyed"]:
        again = await store.create(a_job(), Idempotency(job_id, "fingerprint"))
        assert (again.job.id, again.is_new) == (job_id, False)

    waiting = [job.id async for jobs in store.queued() for job in jobs]
    assert {job.id for job in records.values() if not job.state.is_final} <= set(waiting)
    lease = Lease("last", time.time() + 600)
    assert len(await store.claim(waiting, lease, time.time())) == len(waiting)
    for job_id in waiting:
        assert await store.settle(Outcome(job_id, JobState.COMPLETED), "last", time.time())
    left = [job for job in (await jobs_of(store, accepted)).values() if not job.state.is_final]
    assert left == []
    await store.aclose()
    await database.close()
