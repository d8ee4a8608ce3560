"""What we add: durable jobs on a model that does nothing."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import uvloop

from bench.client import Answer, Client, closed_loop, open_loop, poisson
from bench.server import resident_mib, server

REQUEST: dict[str, Any] = {"model": "echo", "prompt": "The future of AI is"}
BURST = 1000
RATE_PER_S = 50.0


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

        (await closed_loop(8, 2.0, work)).without_errors()
        before_mib = resident_mib(pid)
        at_random = (await open_loop(poisson(RATE_PER_S, seconds), work)).without_errors()
        rates: dict[int, float] = {}
        total = 0
        for users in clients:
            load = (await closed_loop(users, seconds, work)).without_errors()
            rates[users] = load.per_s
            total += len(load.latencies_s)
        started = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(BURST)))
        burst_s = time.perf_counter() - started
    return Noop(
        jobs_per_s=rates,
        p50_ms=at_random.quantile_ms(0.50),
        p99_ms=at_random.quantile_ms(0.99),
        burst_s=burst_s,
        memory_before_mib=before_mib,
        memory_after_mib=resident_mib(pid),
        jobs=total,
    )
