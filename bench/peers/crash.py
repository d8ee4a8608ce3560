"""kill -9 of a peer amid requests, and what is left of what it had taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

from bench.client import Load, timed
from bench.peers.catalogue import Peer
from bench.peers.client import Client
from bench.peers.measure import first_answer
from bench.peers.process import Running, running
from bench.peers.results import Crash

PATIENCE_S = 90.0
"""A job without a result for so long after the restart is lost. Whoever gives a dead worker's jobs
to another one does so within half of that (`REDELIVERY_S`)."""

LATE_S = 5.0
"""A result that comes so long after the first answer is told to be late."""


async def crash(peer: Peer, workload: str, requests: int) -> Crash:
    """Kill a peer under load, start it again, and ask for the result of all that it accepted."""
    with running(peer, workload) as process:
        async with Client(peer, workload, process.url) as client:
            await first_answer(process, client)
            accepted, broken = await _interrupted(process, client, requests)
            started = time.perf_counter()
            process.start()
            await first_answer(process, client)
            back_s = time.perf_counter() - started
            left = await _left(client, accepted)
    late = [seconds for seconds in left.latencies_s if seconds > LATE_S]
    lost, slowest_s = left.errors.total(), max(left.latencies_s, default=0.0)
    return Crash(requests, len(accepted), lost, broken, back_s, len(late), slowest_s)


async def _interrupted(
    process: Running, client: Client, requests: int
) -> tuple[list[dict[str, Any]], int]:
    """Send so many requests at once and kill the peer when a quarter was taken or answered."""
    accepted: list[dict[str, Any]] = []
    load = Load()

    async def one() -> None:
        accepted.append(await client.submit())

    tasks = [asyncio.create_task(timed(load, one)) for _ in range(requests)]
    while len(accepted) < requests // 4 and not all(task.done() for task in tasks):
        await asyncio.sleep(0.001)
    await asyncio.to_thread(process.kill)
    await asyncio.gather(*tasks)
    return (accepted if process.peer.durable else []), load.errors.total()


async def _left(client: Client, accepted: Sequence[dict[str, Any]]) -> Load:
    """Ask for the results of all that was accepted: how long each took, and which did not come."""
    results = Load()

    async def one(job: dict[str, Any]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await client.result(job)

    await asyncio.gather(*(timed(results, partial(one, job)) for job in accepted))
    return results
