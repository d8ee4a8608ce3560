"""One round of one peer: started, loaded, measured beside the machine's own state, and ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from bench.client import Load, closed_loop, open_loop, poisson, timed
from bench.control import Ticks, Watch
from bench.peers.catalogue import Peer
from bench.peers.client import Client
from bench.peers.plan import SETTLE_S, WARM_UP_CLIENTS, WARM_UP_S, Plan
from bench.peers.process import Running, running, with_session
from bench.peers.results import Point, Round
from bench.processor import readings, spent_s

START_TIMEOUT_S = 90.0
REPEATS = 2


class Failed(Exception):
    """A peer that could not be measured, and why."""


class Meter:
    """Measures loads on one running peer; what neighbours disturb is repeated, for a while."""

    def __init__(self, process: Running, watch: Watch, repeat_until: float) -> None:
        """`repeat_until` is in the time of `time.monotonic`."""
        self._process, self._watch, self._repeat_until = process, watch, repeat_until

    async def point(self, load: Callable[[], Awaitable[Load]]) -> Point:
        """The load's figures; of several tries those of the one that lost least to others."""
        points = [await self._once(load)]
        while (
            points[-1].is_disturbed
            and len(points) <= REPEATS
            and time.monotonic() < self._repeat_until
        ):
            points.append(await self._once(load))
        return min(points, key=lambda point: point.stolen + point.others_cores)

    async def at_rest(self, seconds: float) -> float:
        """How many cores it keeps busy while nobody asks anything."""
        await asyncio.sleep(SETTLE_S)
        before, began_at = self._readings(), time.perf_counter()
        await asyncio.sleep(seconds)
        core_s = spent_s(before, self._readings())
        return core_s / (time.perf_counter() - began_at)

    def _readings(self) -> Mapping[int, float]:
        return readings(with_session(self._process.pid))

    async def _once(self, load: Callable[[], Awaitable[Load]]) -> Point:
        self._watch.begin()
        before, own_s = self._readings(), time.process_time()
        found = await load()
        core_s = spent_s(before, self._readings())
        control = self._watch.end(core_s + time.process_time() - own_s)
        answers = len(found.latencies_s)
        return Point(
            answers=answers,
            per_s=found.per_s,
            p50_ms=found.quantile_ms(0.50) if answers else None,
            p99_ms=found.quantile_ms(0.99) if answers else None,
            core_ms=1000 * core_s / answers if answers else None,
            errors=dict(found.errors),
            stolen=control.stolen,
            late_ms=control.late_ms,
            others_cores=control.others_cores,
        )


async def measure(peer: Peer, workload: str, plan: Plan, repeat_until: float) -> Round:
    """Start the peer, put each load on it, and end it.

    Raises:
        Failed: it did not start, or ended under the load.
    """
    started, before = time.perf_counter(), Ticks.read()
    with running(peer, workload) as process, Watch() as watch:
        async with Client(peer, workload, process.url) as client:
            await first_answer(process, client)
            first_answer_s = time.perf_counter() - started
            start_stolen = Ticks.read().stolen_since(before)
            await closed_loop(WARM_UP_CLIENTS, WARM_UP_S, client.ask)
            meter = Meter(process, watch, repeat_until)
            rest_cores = await meter.at_rest(plan.rest_s) if plan.rest_s else None
            gaps_s = poisson(plan.rate_per_s, plan.equal_s)
            equal = await meter.point(lambda: open_loop(gaps_s, client.ask))
            closed = {
                count: await meter.point(lambda count=count: _closed(count, plan, client))  # type: ignore[misc]
                for count in plan.clients
            }
            if process.has_ended:
                raise Failed(f"it ended under the load:\n{process.tail()}")
            memory_mib = process.memory_mib()
            return Round(first_answer_s, memory_mib, equal, closed, start_stolen, rest_cores)


async def _closed(clients: int, plan: Plan, client: Client) -> Load:
    return await closed_loop(clients, plan.seconds, client.ask, plan.waves)


async def first_answer(process: Running, client: Client) -> None:
    """Return at the first good answer.

    Raises:
        Failed: there is none in time.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline and not process.has_ended:
        if await client.is_ready() and await timed(Load(), client.ask):
            return
        await asyncio.sleep(0.02)
    raise Failed(f"it gave no answer:\n{process.tail()}")
