"""The meters of one machine over restarts, kill -9 and a disk that fails."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from synapse.adapters.local import database as database_module
from synapse.adapters.local import meter as meter_module
from synapse.adapters.local.database import Database
from synapse.adapters.local.job_store import SqliteJobStore
from synapse.adapters.local.meter import SqliteMeter
from synapse.application.metering import Metering
from synapse.domain.access import Limits
from synapse.domain.job import JobId
from synapse.domain.limiting import Left, Measure
from synapse.domain.metering import (
    NANO,
    Bounds,
    MeterId,
    Reservation,
    ReservationId,
    Used,
    used_by_job,
)
from tests.factories import NOW, an_id
from tests.integration.local import metered_server
from tests.integration.local.metered_server import NEVER_SPENT, RESERVED_NANO, views
from tests.patience import PATIENCE_S, until

KEY, TENANT = MeterId("acme", "key1"), MeterId("acme")
LIMITS = Limits(requests_per_minute=9, concurrent_jobs=2, monthly_usd=1000 / NANO)
BOTH: Bounds = {KEY: LIMITS, TENANT: LIMITS}
ROUNDS = 5
MOST_ROUNDS = 60
"""Where the machine is busy, little may happen in those few."""
SEED = 20261121


class FailingDisk:
    """What the meter writes comes to nothing as long as it `fails`; it counts how often."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
        self.fails, self.tries = True, 0
        self._save, self._why = meter_module._save, why
        monkeypatch.setattr(meter_module, "_save", self.save)

    def save(self, connection: sqlite3.Connection, rows: Any) -> None:
        self.tries += 1
        self._save(connection, rows)
        if self.fails:
            raise sqlite3.OperationalError(self._why)


def asked(nano: int = 100, *, is_job: bool = True) -> Reservation:
    reservation_id = ReservationId("acme", an_id(), int(NOW) + 3600)
    return Reservation(reservation_id, tuple(BOTH), NOW, 10, nano, is_job)


async def test_a_restart_forgets_nothing_of_the_month_the_minute_and_the_jobs(
    tmp_path: Path,
) -> None:
    database = Database.open(tmp_path / "jobs.db")
    meter = await SqliteMeter.open(database)
    job, done, on_the_line = asked(), asked(), asked(is_job=False)
    await meter.reserve(job, BOTH)
    await meter.reserve(done, BOTH)
    await meter.settle(done.id, Used(1, 1, 40))
    await meter.reserve(on_the_line, BOTH)
    await meter.aclose()

    again = await SqliteMeter.open(database)

    assert again.left_open() == [job]
    verdict = await again.reserve(asked(), BOTH)
    assert verdict.refusal is None, "who was on the line has gone with the process"
    assert verdict.standing.requests == Left(9 - 4, 9)
    assert (await again.reserve(asked(), BOTH)).refusal is not None
    refusals = [(await again.reserve(asked(nano), BOTH)).refusal for nano in (860, 861)]
    assert [each and each.measure for each in refusals] == [Measure.SPEND] * 2
    # Two hundred are held, by the job and the new one; who was on the line holds nothing.
    assert [each and each.retry_after_s for each in refusals] == [2, None]
    await again.settle(job.id, Used(1, 1, 10))
    # 40 and 10 used, 100 of the request that was cut off, and of the new one.
    assert (await again.reserve(asked(751), BOTH)).refusal is not None
    assert (await again.reserve(asked(750), BOTH)).refusal is None
    await again.aclose()
    await database.close()


async def test_what_the_disk_does_not_take_is_written_when_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database.open(tmp_path / "jobs.db")
    meter = await SqliteMeter.open(database)
    disk = FailingDisk(monkeypatch, "disk I/O error")
    monkeypatch.setattr(meter_module, "RETRY_LATER_S", 0.02)
    kept, settled = asked(), asked()
    await meter.reserve(kept, BOTH)
    await meter.reserve(settled, BOTH)
    await until(lambda: "meters not written" in caplog.text)
    await meter.settle(settled.id, Used(1, 1, 7))
    disk.fails = False
    await asyncio.sleep(0.1)
    await meter.aclose()
    again = await SqliteMeter.open(database)
    assert again.left_open() == [kept]
    assert (await again.reserve(asked(1000 - 107), BOTH)).refusal is None
    await again.aclose()
    await database.close()


async def test_a_disk_that_stays_full_is_tried_by_one_at_a_time_and_told_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database.open(tmp_path / "jobs.db")
    meter = await SqliteMeter.open(database)
    disk = FailingDisk(monkeypatch, "database or disk is full")
    monkeypatch.setattr(meter_module, "RETRY_LATER_S", 0.05)
    monkeypatch.setattr(meter_module, "TELL_EVERY_S", 3600.0)
    changes = 30
    for number in range(changes):
        reservation_id = ReservationId("acme", str(number), int(NOW) + 60)
        await meter.reserve(Reservation(reservation_id, (KEY,), NOW, 1, 1, True), {})
        await asyncio.sleep(0.005)
    await until(lambda: disk.tries >= changes)
    before, began_at = disk.tries, time.monotonic()
    await asyncio.sleep(1.0)

    # Each request tries once; after them there is one retry, not one for each failure.
    assert 0 < disk.tries - before <= (time.monotonic() - began_at) / 0.05 + 1
    assert caplog.text.count("meters not written") == 1
    disk.fails = False
    await _until_written(database, [str(number) for number in range(changes)])
    await meter.aclose()
    await database.close()


async def test_what_a_locked_database_does_not_take_is_written_when_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(database_module, "BUSY_TIMEOUT_S", 0.01)
    monkeypatch.setattr(meter_module, "RETRY_LATER_S", 0.02)
    database = Database.open(tmp_path / "jobs.db")
    meter = await SqliteMeter.open(database)
    other = sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    job, settled = asked(), asked()
    await meter.reserve(job, BOTH)
    await meter.reserve(settled, BOTH)
    await until(lambda: "meters not written" in caplog.text)
    other.execute("ROLLBACK")
    other.close()

    await meter.settle(settled.id, Used(1, 1, 7))

    await _until_written(database, [job.id.name])
    await meter.aclose()
    await database.close()


async def _until_written(database: Database, names: list[str]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (written := await database.read(_written)) != sorted(names):
        assert time.monotonic() < deadline, written
        await asyncio.sleep(0.01)


def _written(connection: sqlite3.Connection) -> list[str]:
    return [name for [name] in connection.execute("SELECT name FROM reservations ORDER BY name")]


async def test_writes_are_shared_and_never_waited_for(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "jobs.db")
    meter = await SqliteMeter.open(database)
    wide = {KEY: Limits(monthly_usd=1.0)}
    writes = 0
    hand_over = database.hand_over

    def counted(work: Any) -> Any:
        nonlocal writes
        writes += 1
        return hand_over(work)

    database.hand_over = counted  # type: ignore[method-assign]
    for number in range(1000):
        reservation_id = ReservationId("acme", str(number), int(NOW) + 60)
        await meter.reserve(Reservation(reservation_id, (KEY,), NOW, 1, 1, True), wide)
    assert writes < 900
    await meter.aclose()
    assert len((await SqliteMeter.open(database)).left_open()) == 1000
    await database.close()


async def test_a_writer_that_is_done_at_once_is_given_the_next_rows_too(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "jobs.db")
    meter = await SqliteMeter.open(database)
    hand_over = database.hand_over

    def done_at_once(work: Any) -> Any:
        done = threading.Event()

        def noted(connection: sqlite3.Connection) -> None:
            work(connection)
            done.set()

        write = hand_over(noted)
        assert done.wait(PATIENCE_S)
        return write

    database.hand_over = done_at_once  # type: ignore[method-assign]
    first, second = asked(), asked()
    await meter.reserve(first, BOTH)
    await meter.reserve(second, BOTH)
    await meter.aclose()
    again = await SqliteMeter.open(database)
    assert {each.id for each in again.left_open()} == {first.id, second.id}
    await database.close()


def live_and_die(path: Path, seed: int, for_s: float) -> list[JobId]:
    """The jobs whose callers were told of them until the process was killed."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, metered_server.__file__, str(path), str(seed)]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready -\n"
        time.sleep(for_s)
        child.kill()
        lines = child.stdout.read().decode().splitlines()
    return [JobId(line.split()[1]) for line in lines if line.startswith("created ")]


async def test_after_kill_9_the_meters_say_what_the_records_say(tmp_path: Path) -> None:
    path, chance = tmp_path / "jobs.db", random.Random(SEED)
    told: list[JobId] = []
    for number in range(MOST_ROUNDS):
        told += live_and_die(path, SEED + number, for_s=chance.uniform(0.05, 0.4))

        database = Database.open(path)
        store = SqliteJobStore(database, time.time)
        await store.recover(time.time(), NEVER_SPENT)
        meter = await SqliteMeter.open(database)
        await Metering(meter, views, time.time).recover(meter.left_open(), store.get)
        ids = await database.read(lambda c: [i for (i,) in c.execute("SELECT id FROM jobs")])
        jobs = [job for i in ids if (job := await store.get(i)) is not None]

        assert set(told) <= {job.id for job in jobs}
        under_way = [job for job in jobs if not job.state.is_final]
        assert {each.id.name for each in meter.left_open()} == {job.id for job in under_way}
        used = [used_by_job(job) for job in jobs if job.state.is_final]
        spent = sum(RESERVED_NANO if each is None else each.nano_usd for each in used)
        counts = meter._ledger.counts(KEY)
        assert counts.nano_usd == spent + RESERVED_NANO * len(under_way)
        assert counts.open == len(under_way)
        await meter.aclose()
        await database.close()
        if number + 1 >= ROUNDS and used:
            return
    raise AssertionError("all rounds were too short to show anything")
