"""A client as a user would write it: submit, then wait for the result."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp

MAX_CONNECTIONS = 2000


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

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._session.close()

    async def run(self, request: dict[str, Any]) -> Answer:
        """Submit a job and wait until it has ended.

        Raises:
            RuntimeError: it was refused, or did not complete.
        """
        started = time.perf_counter()
        async with self._session.post(f"{self._url}/async-infer", json=request) as response:
            accepted = await response.json()
            if response.status != 202:
                raise RuntimeError(f"refused with {response.status}: {accepted}")
        while True:
            url = f"{self._url}/results/{accepted['jobId']}?wait=60"
            async with self._session.get(url) as response:
                body = await response.json()
            if body["status"] == "COMPLETED":
                return Answer(body, time.perf_counter() - started)
            if body["status"] not in ("QUEUED", "RUNNING"):
                raise RuntimeError(f"job ended {body['status']}: {body['error']}")


async def closed_loop(
    clients: int, seconds: float, work: Callable[[], Awaitable[Answer]]
) -> tuple[int, float]:
    """`clients` users who ask again as soon as they are answered: (answers, seconds taken)."""
    started = time.perf_counter()
    stop_at = started + seconds
    done = 0

    async def user() -> None:
        nonlocal done
        while time.perf_counter() < stop_at:
            await work()
            done += 1

    await asyncio.gather(*(user() for _ in range(clients)))
    return done, time.perf_counter() - started


async def open_loop(
    gaps_s: Sequence[float], work: Callable[[], Coroutine[Any, Any, Answer]]
) -> list[float]:
    """Requests sent at given gaps whatever the answers do; the latencies in seconds, sorted."""
    tasks: list[asyncio.Task[Answer]] = []
    due = time.perf_counter()
    for gap_s in gaps_s:
        due += gap_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        tasks.append(asyncio.create_task(work()))
    return sorted(answer.seconds for answer in await asyncio.gather(*tasks))


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the sorted `values` do not exceed."""
    return values[min(len(values) - 1, int(share * len(values)))]
