"""What we add: durable jobs on a model that does nothing."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import uvloop

from bench.client import Client, Work, closed_loop, open_loop, poisson
from bench.server import resident_mib, server

REQUEST: dict[str, Any] = {"model": "echo", "prompt": "The future of AI is"}
BURST = 1000
RATE_PER_S = 50.0


@dataclass(frozen=True, slots=True)
class Way:
    """Jobs/s in closed loops by their clients, and latency in ms at 50 jobs/s."""

    jobs_per_s: dict[int, float]
    p50_ms: float
    p99_ms: float
    jobs: int


@dataclass(frozen=True, slots=True)
class Noop:
    """Jobs that are submitted and then asked for, jobs held until they end, and the rest.

    `burst_s` is how long 1,000 at once take; memory is of the server, after a few jobs and after
    all of them.
    """

    asked: Way
    held: Way
    burst_s: float
    memory_before_mib: float
    memory_after_mib: float


def measure(clients: tuple[int, ...], seconds: float) -> Noop:
    """Run against a fresh server with the echo model only."""
    with server("echo") as running:
        return uvloop.run(_measure(running.url, running.pid, clients, seconds))


async def _measure(url: str, pid: int, clients: tuple[int, ...], seconds: float) -> Noop:
    async with Client(url) as client:

        async def asked() -> None:
            await client.run(REQUEST)

        async def held() -> None:
            await client.run_held(REQUEST)

        for work in (asked, held):
            (await closed_loop(8, 1.0, work)).without_errors()
        before_mib = resident_mib(pid)
        ways = [await _way(work, clients, seconds) for work in (asked, held)]
        started = time.perf_counter()
        await asyncio.gather(*(asked() for _ in range(BURST)))
        burst_s = time.perf_counter() - started
    return Noop(ways[0], ways[1], burst_s, before_mib, resident_mib(pid))


async def _way(work: Work, clients: tuple[int, ...], seconds: float) -> Way:
    at_random = (await open_loop(poisson(RATE_PER_S, seconds), work)).without_errors()
    rates: dict[int, float] = {}
    jobs = len(at_random.latencies_s)
    for users in clients:
        load = (await closed_loop(users, seconds, work)).without_errors()
        rates[users] = load.per_s
        jobs += len(load.latencies_s)
    return Way(rates, at_random.quantile_ms(0.50), at_random.quantile_ms(0.99), jobs)
