"""What the job store costs: CPU per job's life, jobs per second, and the latency of one create.

    python -m bench.store [--jobs 5000] [--concurrency 64] [--waiting 0] [--folder FOLDER]

A life is create, claim, settle and one get; there are three times `--jobs` of them and a tenth.
So many jobs as `--waiting` says are created before and wait all the while. The folder decides which
disk is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import resource
import sqlite3
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

from bench.client import percentile
from synapse.adapters.local.database import Database
from synapse.adapters.local.job_store import SqliteJobStore
from synapse.domain.job import (
    Job,
    JobId,
    JobState,
    Lease,
    Outcome,
    Payload,
    Priority,
    SlaTier,
    Usage,
)

PROMPT = "The future of AI is " * 25
TEXT = "bright, and so is the future of everything else. " * 10


def new_job(now: float) -> Job:
    """A job as `POST /async-infer` makes it, with half a kilobyte of prompt."""
    return Job(
        id=JobId(f"{time.time_ns():x}-{uuid.uuid4().hex[:12]}"),
        model="echo",
        version="1",
        payload=Payload(inline=f'{{"prompt":"{PROMPT}","messages":[],"parameters":{{}}}}'),
        priority=Priority.NORMAL,
        sla=SlaTier.BRONZE,
        tokens=160,
        created_at=now,
        deadline_at=now + 3600,
        sent_at=now,
    )


async def live(store: SqliteJobStore) -> None:
    """The whole life of one job."""
    job = (await store.create(new_job(time.time()))).job
    now = time.time()
    await store.claim([job.id], Lease("bench", now + 600), now)
    result = Payload(inline=f'{{"text":"{TEXT}","finish_reason":"stop"}}')
    outcome = Outcome(job.id, JobState.COMPLETED, result=result, usage=Usage(130, 100))
    if await store.settle(outcome, "bench", time.time()) is None:
        raise RuntimeError("a settle was refused")
    ended = await store.get(job.id)
    if ended is None or not ended.state.is_final:
        raise RuntimeError("a job was not ended")


async def many(work: Callable[[], Awaitable[object]], count: int, concurrency: int) -> None:
    """Do `work` `count` times, `concurrency` at a time."""
    turns: Iterator[int] = iter(range(count))

    async def lane() -> None:
        for _ in turns:
            await work()

    await asyncio.gather(*(lane() for _ in range(concurrency)))


async def lives(store: SqliteJobStore, count: int, concurrency: int) -> None:
    """Measure whole lives."""
    transactions, cpu_s, started = store.groups_committed, time.process_time(), time.monotonic()
    await many(lambda: live(store), count, concurrency)
    took_s = time.monotonic() - started
    cpu_us = (time.process_time() - cpu_s) / count * 1e6
    groups = store.groups_committed - transactions
    print(
        f"{concurrency:>5} at once: {count / took_s:7,.0f} lives/s, {cpu_us:4.0f} µs CPU a life, "
        f"{2 * count / groups:5.1f} writes a group"
    )


async def creates(store: SqliteJobStore, count: int) -> None:
    """Measure creates one after the other, with the disk's own flush beside them."""
    took_s = []
    for _ in range(count):
        started = time.perf_counter()
        await store.create(new_job(time.time()))
        took_s.append(time.perf_counter() - started)
        await asyncio.sleep(0.001)
    print(f"lone create: {quantiles(took_s)}")


def flushes(folder: Path, count: int) -> None:
    """Measure the disk alone: append 4 KB and wait for it."""
    took_s = []
    with (folder / "flush").open("wb") as file:
        for _ in range(count):
            started = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fdatasync(file.fileno())
            took_s.append(time.perf_counter() - started)
    print(f"bare flush:  {quantiles(took_s)}")


def quantiles(seconds: Sequence[float]) -> str:
    """The median and the 99th percentile, in milliseconds."""
    ordered = sorted(seconds)
    p50, p99 = (percentile(ordered, share) * 1000 for share in (0.5, 0.99))
    return f"p50 {p50:.2f} ms, p99 {p99:.2f} ms"


async def waiting(store: SqliteJobStore, count: int, concurrency: int) -> None:
    """Create jobs that nobody claims."""
    await many(lambda: store.create(new_job(time.time())), count, concurrency)
    print(f"waiting:     {count:,} jobs, {resident_mb()} MB in memory")


def resident_mb() -> int:
    """The most memory that this process had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


async def measure(folder: Path, jobs: int, concurrency: int, waiting_jobs: int) -> None:
    """Run all measurements on a database in `folder`."""
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {folder}")
    database = Database.open(folder / "bench.db")
    store = SqliteJobStore(database, time.time)
    await many(lambda: live(store), 200, 16)
    flushes(folder, 300)
    await creates(store, 300)
    if waiting_jobs:
        await waiting(store, waiting_jobs, 4 * concurrency)
    for at_once in (1, 8, concurrency, 4 * concurrency):
        await lives(store, jobs if at_once > 1 else jobs // 10, at_once)
    await store.aclose()
    await database.close()
    print(f"peak memory: {resident_mb()} MB")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--waiting", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        options = (arguments.jobs, arguments.concurrency, arguments.waiting)
        asyncio.run(measure(Path(folder), *options))


if __name__ == "__main__":
    main()
