"""Load, as users make it: a client for jobs, closed and open loops, and what comes of them."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import aiohttp

MAX_CONNECTIONS = 2000
AFTER_ERROR_S = 0.1
"""How long a user waits who was answered with an error."""

Work = Callable[[], Awaitable[object]]


class Refused(Exception):
    """An answer that is none: its status, or what was missing in it."""


@dataclass(slots=True)
class Load:
    """What came of a load: latencies in seconds of what was answered, and errors by kind."""

    latencies_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    took_s: float = 0.0

    @property
    def per_s(self) -> float:
        """Answers a second."""
        return len(self.latencies_s) / self.took_s if self.took_s else 0.0

    def quantile_ms(self, share: float) -> float:
        """A quantile of the latencies in ms.

        Raises:
            ValueError: nothing was answered.
        """
        if not self.latencies_s:
            raise ValueError("nothing was answered")
        return percentile(sorted(self.latencies_s), share) * 1000

    def without_errors(self) -> Self:
        """Itself, where every request was answered.

        Raises:
            RuntimeError: one was not.
        """
        if self.errors:
            raise RuntimeError(f"requests failed: {dict(self.errors)}")
        return self


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished job: its result body, and seconds from sending the request to having it."""

    body: dict[str, Any]
    seconds: float


class Client:
    """Speaks to one Synapse server over kept-alive connections."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS),
            timeout=aiohttp.ClientTimeout(total=300),
        )

    async def __aenter__(self) -> Self:
        """The client itself."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        await self._session.close()

    async def run(self, request: dict[str, Any]) -> Answer:
        """Submit a job and wait until it has ended.

        Raises:
            Refused: it was not accepted, or did not complete.
        """
        started = time.perf_counter()
        async with self._session.post(f"{self._url}/async-infer", json=request) as response:
            accepted = await response.json()
            if response.status != 202:
                raise Refused(f"HTTP {response.status}: {accepted}")
        while True:
            url = f"{self._url}/results/{accepted['jobId']}?wait=60"
            async with self._session.get(url) as response:
                body = await response.json()
            if body["status"] == "COMPLETED":
                return Answer(body, time.perf_counter() - started)
            if body["status"] not in ("QUEUED", "RUNNING"):
                raise Refused(f"job ended {body['status']}: {body['error']}")

    async def run_held(self, request: dict[str, Any]) -> Answer:
        """The same with one request, which is answered when the job has ended.

        Raises:
            Refused: it was not accepted, or did not complete in time.
        """
        started = time.perf_counter()
        async with self._session.post(f"{self._url}/infer?wait=60", json=request) as response:
            body = await response.json()
            if response.status != 200 or body["status"] != "COMPLETED":
                raise Refused(f"HTTP {response.status}: {body}")
        return Answer(body, time.perf_counter() - started)


async def timed(load: Load, work: Work, since: float | None = None) -> bool:
    """One request; its latency, counted from `since` or from now, or its error is noted.

    Returns whether it was answered.
    """
    started = time.perf_counter() if since is None else since
    try:
        await work()
    except Refused as error:
        load.errors[str(error)] += 1
    except (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError) as error:
        load.errors[type(error).__name__] += 1
    else:
        load.latencies_s.append(time.perf_counter() - started)
        return True
    return False


async def closed_loop(clients: int, seconds: float, work: Work, waves: int = 1) -> Load:
    """`clients` who ask again as soon as they are answered, for so many seconds.

    Each asks `waves` times at least, however long that takes.
    """
    load = Load()
    started = time.perf_counter()
    stop_at = started + seconds

    async def user() -> None:
        asked = 0
        while asked < waves or time.perf_counter() < stop_at:
            asked += 1
            if not await timed(load, work):
                await asyncio.sleep(AFTER_ERROR_S)

    await asyncio.gather(*(user() for _ in range(clients)))
    load.took_s = time.perf_counter() - started
    return load


async def open_loop(gaps_s: Sequence[float], work: Work) -> Load:
    """Requests at given gaps whatever the answers do; latencies count from when each was due."""
    load = Load()
    started = due = time.perf_counter()
    tasks: list[asyncio.Task[bool]] = []
    for gap_s in gaps_s:
        due += gap_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(timed(load, work, due)))
    await asyncio.gather(*tasks)
    load.took_s = time.perf_counter() - started
    return load


def poisson(rate_per_s: float, seconds: float, seed: int = 1) -> list[float]:
    """Gaps of arrivals at random (a Poisson process)."""
    draw = random.Random(seed)
    return [draw.expovariate(rate_per_s) for _ in range(max(1, int(rate_per_s * seconds)))]


def percentile(values: Sequence[float], share: float) -> float:
    """The least of the sorted `values` that so large a `share` of them do not exceed."""
    return values[max(1, math.ceil(share * len(values))) - 1]
