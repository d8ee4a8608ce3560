"""The client that asks every peer alike: closed loops, arrivals at random, and what comes of it."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import aiohttp

from bench.client import MAX_CONNECTIONS, percentile
from bench.embeddings import VOCABULARY
from bench.peers.catalogue import Peer

REQUEST_TIMEOUT_S = 120.0
WORDS = VOCABULARY.split()


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

    def quantile_ms(self, share: float) -> float | None:
        """A quantile of the latencies in ms; None if nothing was answered."""
        return percentile(sorted(self.latencies_s), share) * 1000 if self.latencies_s else None


class Client:
    """Asks one peer for one workload, over connections that are kept."""

    def __init__(self, peer: Peer, workload: str, url: str, seed: int = 7) -> None:
        self._peer, self._workload, self._url = peer, workload, url
        self._random = random.Random(seed)
        self._session: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        """Open the connections."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=2.0),
            timeout=aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close them."""
        await self._session.close()

    def text(self) -> str:
        """A sentence of 4 to 24 words; the same sequence for every peer."""
        return " ".join(self._random.choices(WORDS, k=self._random.randint(4, 24)))

    async def is_ready(self) -> bool:
        """Whether the peer says that it is up."""
        try:
            async with self._session.get(self._url + self._peer.ready) as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            return False

    async def ask(self) -> None:
        """One request, until its answer is whole.

        Raises:
            Refused: the answer is none.
            ClientError, TimeoutError: there was none.
        """
        accepted = await self.submit()
        if self._peer.durable:
            await self.result(accepted)

    async def submit(self) -> dict[str, Any]:
        """Send a request; of a durable peer the answer is that the job was accepted."""
        ask = self._peer.ask(self._workload, self.text())
        async with self._session.post(self._url + ask.path, json=ask.body) as response:
            text = await response.text()
            if response.status not in (200, 202):
                raise Refused(f"HTTP {response.status}")
        if not text:
            raise Refused("an empty answer")
        if not ask.holds:
            return {}
        body: dict[str, Any] = json.loads(text)
        if not body.get(ask.holds):
            raise Refused(f"no {ask.holds}")
        return body

    async def result(self, accepted: dict[str, Any]) -> None:
        """Wait for the result of an accepted job."""
        key, value = self._peer.done
        path = self._peer.result.format(accepted[self._peer.id_key])
        while True:
            async with self._session.get(self._url + path) as response:
                body = await response.json()
            if response.status != 200:
                raise Refused(f"HTTP {response.status}")
            if body[key] == value:
                return
            if body[key] in ("FAILED", "CANCELLED", "EXPIRED"):
                raise Refused(f"job {body[key]}")


async def timed(load: Load, work: Callable[[], Awaitable[None]]) -> None:
    """One request; its latency or its error is noted."""
    started = time.perf_counter()
    try:
        await work()
    except Refused as error:
        load.errors[str(error)] += 1
    except (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError) as error:
        load.errors[type(error).__name__] += 1
    else:
        load.latencies_s.append(time.perf_counter() - started)


async def closed_loop(clients: int, seconds: float, work: Callable[[], Awaitable[None]]) -> Load:
    """`clients` who ask again as soon as they are answered."""
    load = Load()
    started = time.perf_counter()
    stop_at = started + seconds

    async def user() -> None:
        while time.perf_counter() < stop_at:
            errors = load.errors.total()
            await timed(load, work)
            if load.errors.total() > errors:
                await asyncio.sleep(0.1)

    await asyncio.gather(*(user() for _ in range(clients)))
    load.took_s = time.perf_counter() - started
    return load


async def open_loop(gaps_s: Sequence[float], work: Callable[[], Awaitable[None]]) -> Load:
    """Requests at given gaps whatever the answers do; latencies count from when each was due."""
    load = Load()
    started = due = time.perf_counter()
    tasks: list[asyncio.Task[None]] = []
    for gap_s in gaps_s:
        due += gap_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(timed(load, work)))
    await asyncio.gather(*tasks)
    load.took_s = time.perf_counter() - started
    return load


def poisson(rate_per_s: float, seconds: float, seed: int = 1) -> list[float]:
    """Gaps of arrivals at random (a Poisson process)."""
    draw = random.Random(seed)
    return [draw.expovariate(rate_per_s) for _ in range(max(1, int(rate_per_s * seconds)))]
