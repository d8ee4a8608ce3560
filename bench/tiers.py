"""Gold, silver and bronze together: what bronze costs the better tiers, and what it gets.

Callers of gold and silver come at random times at a fixed rate; behind them a backlog of bronze
jobs is there in one phase and not in the next, in the same run of the same server.
"""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

import aiohttp
import uvloop

from bench.client import percentile
from bench.server import server

SLO_MS = {"gold": 50.0, "silver": 150.0}
SERVICE_TIERS = {"gold": "priority", "silver": "default"}

LOOK_EVERY_S = 0.1
SUBMITTERS = 32
WARM_UP_S = 4.0
SETTLE_S = 2.0


@dataclass(frozen=True, slots=True)
class PoolShape:
    """A pool of one worker: its price an hour, and an item's time in milliseconds."""

    name: str
    price_usd: float
    slots: int
    item_ms: int


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is asked of which pools, and how often.

    `bronze_per_s` is more than the pools could do of it: so long is the backlog made at first. A
    request takes `request_share` of what a job takes. Of an answer that is streamed the first part
    is what is promised. The pools are profiled for `profile_s` seconds before, if at all, or all
    tiers are there for `learn_s`, unmeasured. Where items only take time, `shapes` say how much.
    """

    models: str
    pools: str
    rates_per_s: Mapping[str, float]
    request: Mapping[str, Any]
    job: Mapping[str, Any]
    bronze_per_s: float
    request_share: float = 1.0
    profile_s: float = 0.0
    learn_s: float = 0.0
    shapes: tuple[PoolShape, ...] = ()

    @property
    def streams(self) -> bool:
        """Whether answers are streamed."""
        return bool(self.request.get("stream"))

    @property
    def stream_per_s(self) -> float:
        """Jobs that come in a second where they come as a stream: some always wait.

        Never do so many come at once that the server is busy with taking them alone.
        """
        return 1.1 * self.bronze_per_s


def two_pools(fast: PoolShape, slow: PoolShape) -> Scenario:
    """A fast dear pool and a slow cheap one: real Tritons; items take time, not the processor."""
    pools = "".join(
        f"""
[[pool]]
name = "{pool.name}"
price_per_hour_usd = {pool.price_usd}
models = ["echo"]
[pool.slots]
echo = {pool.slots}
[pool.model_parameters.echo]
slots = "{pool.slots}"
delay_ms = "{pool.item_ms}"
"""
        for pool in (fast, slow)
    )
    return Scenario(
        models="echo",
        pools=pools,
        rates_per_s={"gold": 15.0, "silver": 15.0},
        request={"model": "echo", "prompt": "hello"},
        job={"model": "echo", "prompt": "hello", "sla": "bronze"},
        bronze_per_s=sum(1000 * pool.slots / pool.item_ms for pool in (fast, slow)),
        shapes=(fast, slow),
    )


SLOW = PoolShape("slow", 0.2, slots=6, item_ms=60)
TWO_POOLS = two_pools(PoolShape("fast", 2.0, slots=3, item_ms=20), SLOW)

LLM = "smollm2-135m-instruct"
ONE_LLM = Scenario(
    models=LLM,
    pools="",
    rates_per_s={"gold": 0.5, "silver": 0.5},
    request={"model": LLM, "prompt": "Once", "max_tokens": 4, "stream": True},
    job={"model": LLM, "prompt": "Once", "parameters": {"max_tokens": 32}, "sla": "bronze"},
    bronze_per_s=10.0,
    request_share=4 / 32,
    profile_s=60.0,
)
"""Short generations, by their first token, beside long ones of bronze on the same cores."""

ONE_UNPROFILED_LLM = replace(ONE_LLM, profile_s=0.0, learn_s=60.0)
"""The same where only the answers themselves tell what company costs."""


@dataclass(slots=True)
class Phase:
    """What was seen in one phase; a request that was refused took for ever."""

    bronze_on: bool
    seconds: float
    latencies_ms: dict[str, list[float]] = field(default_factory=lambda: {t: [] for t in SLO_MS})
    bronze_done: int = 0

    @property
    def bronze_per_s(self) -> float:
        """Bronze jobs that were completed in a second."""
        return self.bronze_done / self.seconds


@dataclass(frozen=True, slots=True)
class Tiers:
    """The phases in their order, and what bronze gets when it is alone."""

    scenario: Scenario
    phases: Sequence[Phase]
    bronze_alone_per_s: float

    def latencies_ms(self, tier: str, *, bronze_on: bool) -> list[float]:
        """All of a tier with or without bronze, sorted."""
        phases = [phase for phase in self.phases if phase.bronze_on is bronze_on]
        return sorted(ms for phase in phases for ms in phase.latencies_ms[tier])

    def attainment(self, tier: str, *, bronze_on: bool) -> float:
        """The share that was answered within the tier's promise."""
        latencies = self.latencies_ms(tier, bronze_on=bronze_on)
        return sum(each <= SLO_MS[tier] for each in latencies) / len(latencies)

    def p99_ms(self, tier: str, *, bronze_on: bool) -> float:
        """The 99th percentile likewise."""
        return percentile(self.latencies_ms(tier, bronze_on=bronze_on), 0.99)

    @property
    def bronze_per_s(self) -> float:
        """Beside gold and silver, over all its phases."""
        return statistics.mean(phase.bronze_per_s for phase in self.phases if phase.bronze_on)

    @property
    def left_over_per_s(self) -> float:
        """What the pools do when they are full of bronze, less what gold and silver take."""
        taken_per_s = self.scenario.request_share * sum(self.scenario.rates_per_s.values())
        return self.bronze_alone_per_s - taken_per_s


def measure(scenario: Scenario, seconds: float, rounds: int) -> Tiers:
    """`rounds` times a phase without bronze and one with it."""
    with server(scenario.models, scenario.pools, scenario.profile_s) as running:
        return uvloop.run(_measure(running.url, scenario, seconds, rounds))


async def _measure(url: str, scenario: Scenario, seconds: float, rounds: int) -> Tiers:
    connector = aiohttp.TCPConnector(limit=1000)
    async with aiohttp.ClientSession(url, connector=connector) as session:
        load = Load(session, scenario)
        # Bronze first: it goes everywhere, so that something is known of every pool.
        alone_per_s = await load.bronze_alone_per_s(seconds)
        await load.phase(WARM_UP_S, seed=0, bronze_on=False)
        if scenario.learn_s:
            async with load.backlog(math.ceil(alone_per_s * scenario.learn_s)):
                await load.phase(scenario.learn_s, seed=0, bronze_on=True)
        phases = []
        for number in range(rounds):
            phases.append(await load.phase(seconds, seed=number + 1, bronze_on=False))
            async with load.backlog(math.ceil(alone_per_s * (SETTLE_S + seconds))):
                await load.phase(SETTLE_S, seed=0, bronze_on=True)
                phases.append(await load.phase(seconds, seed=number + 1, bronze_on=True))
    return Tiers(scenario, phases, alone_per_s)


class Load:
    """Callers of each tier, and the backlog behind them."""

    def __init__(self, session: aiohttp.ClientSession, scenario: Scenario) -> None:
        self.session = session
        self.scenario = scenario

    async def bronze_alone_per_s(self, seconds: float) -> float:
        """What bronze gets while nobody else asks, and all pools are full of it."""
        jobs = math.ceil(self.scenario.bronze_per_s * (SETTLE_S + seconds))
        async with self.backlog(jobs):
            return await self.bronze_per_s(seconds)

    async def bronze_per_s(self, seconds: float) -> float:
        """Jobs that are completed in a second, once they have settled."""
        await asyncio.sleep(SETTLE_S)
        before, began = await self.bronze_done(), time.perf_counter()
        await asyncio.sleep(seconds)
        return (await self.bronze_done() - before) / (time.perf_counter() - began)

    async def phase(self, seconds: float, *, seed: int, bronze_on: bool) -> Phase:
        """The same requests at the same moments for the same seed."""
        phase = Phase(bronze_on, seconds)
        before, began = await self.bronze_done(), time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for tier, rate in self.scenario.rates_per_s.items():
                draws = random.Random(f"{seed}-{tier}")
                group.create_task(self._callers(group, phase, tier, rate, draws))
            await asyncio.sleep(seconds)
            phase.bronze_done = await self.bronze_done() - before
            phase.seconds = time.perf_counter() - began
        return phase

    async def _callers(
        self, group: asyncio.TaskGroup, phase: Phase, tier: str, rate: float, draws: random.Random
    ) -> None:
        async for due in _arrivals(rate, draws, phase.seconds):
            group.create_task(self._ask(phase, tier, due))

    async def _ask(self, phase: Phase, tier: str, due: float) -> None:
        """One request; its time counts from when it was due, so that no delay of ours is lost."""
        body = {**self.scenario.request, "service_tier": SERVICE_TIERS[tier]}
        async with self.session.post("/v1/completions", json=body) as response:
            if self.scenario.streams:
                await response.content.readuntil(b"\n\n")
            else:
                await response.read()
            took_ms = (time.perf_counter() - due) * 1000
            await response.read()
        phase.latencies_ms[tier].append(took_ms if response.status == 200 else math.inf)

    @asynccontextmanager
    async def backlog(self, jobs: int) -> AsyncIterator[Sequence[str]]:
        """So many bronze jobs wait when it begins; none are left at its end. Their ids."""
        sent: list[str] = []
        while (missing := jobs - await self._waiting()) > 0:
            left = iter(range(missing))
            await asyncio.gather(*(self._submit_all(left, sent) for _ in range(SUBMITTERS)))
        yield sent
        await self._clear(sent)

    @asynccontextmanager
    async def stream(self, seed: int) -> AsyncIterator[Sequence[str]]:
        """Bronze jobs come at random times, `stream_per_s`; none are left at its end. Their ids."""
        sent: list[str] = []
        async with asyncio.TaskGroup() as group:
            coming = group.create_task(self._come(group, random.Random(seed), sent))
            yield sent
            coming.cancel()
        await self._clear(sent)

    async def _come(self, group: asyncio.TaskGroup, draws: random.Random, sent: list[str]) -> None:
        async for _ in _arrivals(self.scenario.stream_per_s, draws):
            group.create_task(self._submit(sent))

    async def _submit_all(self, left: Iterator[int], sent: list[str]) -> None:
        for _ in left:
            await self._submit(sent)

    async def _submit(self, sent: list[str]) -> None:
        async with self.session.post("/async-infer", json=dict(self.scenario.job)) as answer:
            answer.raise_for_status()
            sent.append((await answer.json())["jobId"])

    async def _clear(self, sent: list[str]) -> None:
        """Cancel what waits, the last ones first: those that are under way are the first."""
        await asyncio.gather(*(self._cancel(sent) for _ in range(SUBMITTERS)))
        while await self._waiting():
            await asyncio.sleep(LOOK_EVERY_S)
        await asyncio.sleep(LOOK_EVERY_S)

    async def _cancel(self, sent: list[str]) -> None:
        """Cancel jobs from the end of the list until one has ended."""
        while sent:
            async with self.session.delete(f"/results/{sent.pop()}") as answer:
                if answer.status == HTTPStatus.CONFLICT:
                    return
                answer.raise_for_status()

    async def bronze_done(self) -> int:
        """Jobs completed since the server started: only bronze comes as jobs."""
        return await self._sum("synapse_jobs_ended_total{", 'state="COMPLETED"')

    async def _waiting(self) -> int:
        return await self._sum("synapse_queue_depth{")

    async def _sum(self, begin: str, part: str = "") -> int:
        async with self.session.get("/metrics") as response:
            lines = (await response.text()).splitlines()
        values = [
            line.rpartition(" ")[2] for line in lines if line.startswith(begin) and part in line
        ]
        return int(sum(map(float, values)))


async def _arrivals(
    per_s: float, draws: random.Random, seconds: float = math.inf
) -> AsyncIterator[float]:
    """The moments of a Poisson process, for so long, each when it has come."""
    due = time.perf_counter()
    end = due + seconds
    while (due := due + draws.expovariate(per_s)) < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        yield due
