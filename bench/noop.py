"""What we add: durable jobs on a model that does nothing."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from typing import Any

import uvloop

from bench.client import Answer, Client, closed_loop, open_loop, percentile
from bench.server import resident_mib, server

REQUEST: dict[str, Any] = {"model": "echo", "prompt": "The future of AI is"}
BURST = 1000


@dataclass(frozen=True, slots=True)
class Noop:
    """Jobs/s in closed loops, latency in ms at 50 jobs/s, a burst of 1,000, and memory."""

    jobs_per_s: dict[int, float]
    p50_ms: float
    p99_ms: float
    burst_s: float
    memory_before_mib: float
    memory_after_mib: float
    jobs: int


def measure(clients: tuple[int, ...], seconds: float) -> Noop:
    """Run against a fresh server with the echo model only."""
    with server("echo") as running:
        return uvloop.run(_measure(running.url, running.pid, clients, seconds))


async def _measure(url: str, pid: int, clients: tuple[int, ...], seconds: float) -> Noop:
    async with Client(url) as client:

        async def work() -> Answer:
            return await client.run(REQUEST)

        await closed_loop(8, 2.0, work)
        before_mib = resident_mib(pid)
        gaps_s = [random.Random(1).expovariate(50.0) for _ in range(int(50 * seconds))]
        latencies_s = await open_loop(gaps_s, work)
        rates: dict[int, float] = {}
        total = 0
        for users in clients:
            done, took_s = await closed_loop(users, seconds, work)
            rates[users] = done / took_s
            total += done
        started = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(BURST)))
        burst_s = time.perf_counter() - started
    return Noop(
        jobs_per_s=rates,
        p50_ms=percentile(latencies_s, 0.50) * 1000,
        p99_ms=percentile(latencies_s, 0.99) * 1000,
        burst_s=burst_s,
        memory_before_mib=before_mib,
        memory_after_mib=resident_mib(pid),
        jobs=total,
    )
