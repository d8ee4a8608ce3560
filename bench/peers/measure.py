"""What is measured of each peer, one after the other on the same cores."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.peers.catalogue import Peer
from bench.peers.load import Client, Load, closed_loop, open_loop, poisson, timed
from bench.peers.process import Running, running

START_TIMEOUT_S = 120.0
WARM_UP_S = 2.0
WARM_UP_CLIENTS = 8
KILLED_JOBS = 200
BACK_TIMEOUT_S = 120.0


class Failed(Exception):
    """A peer that could not be measured, and why."""


@dataclass(frozen=True, slots=True)
class Point:
    """One load: answers a second, latencies in ms, errors."""

    per_s: float
    p50_ms: float | None
    p99_ms: float | None
    errors: dict[str, int]

    @staticmethod
    def of(load: Load) -> Point:
        """The figures of a load."""
        quantiles = load.quantile_ms(0.50), load.quantile_ms(0.99)
        return Point(load.per_s, *quantiles, dict(load.errors))


@dataclass(slots=True)
class Measured:
    """Of one peer at one workload: by number of clients, and what else there is to say."""

    peer: str
    workload: str
    first_answer_s: float = 0.0
    memory_mib: float = 0.0
    closed: dict[int, Point] = field(default_factory=dict)
    at_equal_load: dict[str, Any] = field(default_factory=dict)


async def measure(peer: Peer, workload: str, clients: Sequence[int], seconds: float) -> Measured:
    """Start the peer, load it with so many clients at a time, and end it.

    Raises:
        Failed: it did not start.
    """
    measured = Measured(peer.name, workload)
    started = time.perf_counter()
    with running(peer, workload) as process:
        async with Client(peer, workload, process.url) as client:
            await first_answer(process, client)
            measured.first_answer_s = time.perf_counter() - started
            await closed_loop(WARM_UP_CLIENTS, WARM_UP_S, client.ask)
            for count in clients:
                measured.closed[count] = Point.of(await closed_loop(count, seconds, client.ask))
            measured.memory_mib = process.memory_mib()
    return measured


async def at_equal_load(peer: Peer, workload: str, rate_per_s: float, seconds: float) -> Point:
    """Latencies under arrivals at random, as many a second for every peer."""
    with running(peer, workload) as process:
        async with Client(peer, workload, process.url) as client:
            await first_answer(process, client)
            await closed_loop(WARM_UP_CLIENTS, WARM_UP_S, client.ask)
            return Point.of(await open_loop(poisson(rate_per_s, seconds), client.ask))


async def first_answer(process: Running, client: Client) -> None:
    """Return at the first good answer.

    Raises:
        Failed: there is none in time.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and not process.has_ended:
        if await client.is_ready():
            load = Load()
            await timed(load, client.ask)
            if load.latencies_s:
                return
        await asyncio.sleep(0.02)
    tail = process.log.read_text(encoding="utf-8", errors="replace")[-1500:]
    raise Failed(f"{process.peer.name} gave no answer to {process.workload}:\n{tail}")


@dataclass(frozen=True, slots=True)
class Crash:
    """kill -9 of everything amid so many requests.

    `accepted` is what the caller had been told is taken, `lost` what of it never gave a result;
    `broken` are requests whose caller got an error instead of an answer. `back_s` is from the
    restart to the first answer.
    """

    peer: str
    accepted: int
    lost: int
    broken: int
    back_s: float


async def crash(peer: Peer, workload: str, jobs: int = KILLED_JOBS) -> Crash:
    """Kill a peer under load, start it again, and see what is left of what it had taken."""
    with running(peer, workload) as process:
        async with Client(peer, workload, process.url) as client:
            await first_answer(process, client)
            accepted, broken = await _interrupted(process, client, jobs)
            started = time.perf_counter()
            process.start()
            await first_answer(process, client)
            back_s = time.perf_counter() - started
            lost = await _lost(peer, client, accepted)
    return Crash(peer.name, len(accepted), lost, broken, back_s)


async def _interrupted(
    process: Running, client: Client, jobs: int
) -> tuple[list[dict[str, Any]], int]:
    """Send so many requests at once and kill the peer when a quarter was taken or answered."""
    accepted: list[dict[str, Any]] = []
    load = Load()

    async def one() -> None:
        accepted.append(await client.submit())

    tasks = [asyncio.create_task(timed(load, one)) for _ in range(jobs)]
    while len(accepted) < jobs // 4 and not all(task.done() for task in tasks):
        await asyncio.sleep(0.001)
    await asyncio.to_thread(process.kill)
    await asyncio.gather(*tasks)
    return (accepted if process.peer.durable else []), load.errors.total()


async def _lost(peer: Peer, client: Client, accepted: Sequence[dict[str, Any]]) -> int:
    results = Load()

    async def one(job: dict[str, Any]) -> None:
        async with asyncio.timeout(BACK_TIMEOUT_S):
            await client.result(job)

    await asyncio.gather(*(timed(results, lambda job=job: one(job)) for job in accepted))  # type: ignore[misc]
    return results.errors.total()
