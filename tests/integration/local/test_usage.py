"""Usage in SQLite: what jobs used outlives kill -9 exactly, requests' sums outlive a full disk."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import time
from pathlib import Path

import pytest

from synapse.adapters.local import usage as module
from synapse.adapters.local.database import Database
from synapse.adapters.local.job_rows import SELECT_JOB, job_of
from synapse.adapters.local.job_store import SqliteJobStore
from synapse.adapters.local.usage import SqliteUsageStore
from synapse.domain.errors import Unavailable
from synapse.domain.job import Job
from synapse.domain.sweep import SweepPolicy
from synapse.domain.usage import UsageKey, Used, summed, used_by
from tests.factories import a_running_job
from tests.integration.local.test_kill import MOST_ROUNDS, live_and_die
from tests.patience import PATIENCE_S

ROUNDS = 5
SEED = 20261122
ALL_DAYS = ("0000-01-01", "9999-12-31")
KEY = UsageKey("acme", "key-1", "echo", "2026-11-21")


def _ended(connection: sqlite3.Connection) -> list[Job]:
    rows = connection.execute(f"{SELECT_JOB} WHERE due_at IS NULL").fetchall()
    return [job_of(*row) for row in rows]


async def test_every_end_is_counted_once_whenever_the_process_is_killed(tmp_path: Path) -> None:
    path, chance = tmp_path / "jobs.db", random.Random(SEED)
    for number in range(MOST_ROUNDS):
        live_and_die(path, SEED + number, for_s=chance.uniform(0.05, 0.5))

        database = Database.open(path)
        ended = await database.read(_ended)
        counted = await SqliteUsageStore(database).used("default", *ALL_DAYS)
        await database.close()

        assert counted == summed(used_by(job) for job in ended)
        if number + 1 >= ROUNDS and sum(used.requests for used in counted.values()) > 100:
            return
    raise AssertionError("all rounds were too short to show anything")


async def test_jobs_that_the_next_start_gives_up_are_counted(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "jobs.db")
    store = SqliteJobStore(database, time.time)
    now = time.time()
    await store.create(a_running_job(created_at=now, losses=5, tenant="acme"))
    await store.create(a_running_job(created_at=now - 7200, tenant="acme"))
    await store.create(a_running_job(created_at=now, tenant="acme"))
    await store.aclose()

    recovered = await SqliteJobStore(database, time.time).recover(now, SweepPolicy())

    assert (recovered.failed, recovered.expired, recovered.requeued) == (1, 1, 1)
    counted = await SqliteUsageStore(database).used("acme", *ALL_DAYS)
    assert [(used.requests, used.errors) for used in counted.values()] == [(2, 2)]
    await database.close()


async def test_sums_of_requests_are_on_the_disk_within_a_second(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "jobs.db")
    store = SqliteUsageStore(database)
    for _ in range(100):
        await store.add(KEY, Used(1, 0, 2))

    # Read as another process would: what is in this one's memory does not show.
    other = sqlite3.connect(tmp_path / "jobs.db")
    assert module.WRITE_AFTER_S <= 1.0
    async with asyncio.timeout(PATIENCE_S):
        while not (found := other.execute("SELECT requests, prompt_tokens FROM usage").fetchall()):
            await asyncio.sleep(0.05)
    assert found == [(100, 200)]
    other.close()
    await database.close()


async def test_what_could_not_be_written_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RETRY_AFTER_S", 0.05)
    database = Database.open(tmp_path / "jobs.db")
    store = SqliteUsageStore(database, write_after_s=0.01)
    write, failures = Database.write, [Unavailable("the disk is full")] * 3

    async def failing(self: Database, work: object) -> object:
        if failures:
            raise failures.pop()
        return await write(self, work)  # type: ignore[arg-type]

    monkeypatch.setattr(Database, "write", failing)
    await store.add(KEY, Used(1))
    await asyncio.sleep(0.03)
    await store.add(KEY, Used(2))
    fresh = SqliteUsageStore(database)
    async with asyncio.timeout(PATIENCE_S):
        while await fresh.used("acme", *ALL_DAYS) != {KEY: Used(3)}:
            await asyncio.sleep(0.02)

    assert failures == []
    await store.aclose()
    await database.close()


async def test_closing_writes_what_is_left(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "jobs.db")
    store = SqliteUsageStore(database)
    await store.add(KEY, Used(5))

    await store.aclose()

    assert await SqliteUsageStore(database).used("acme", *ALL_DAYS) == {KEY: Used(5)}
    await database.close()
