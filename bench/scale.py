"""From nothing to 1,000 requests at once and back to nothing, with real workers of one machine."""

from __future__ import annotations

import asyncio
import json
import math
import time
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import uvloop

from bench.client import MAX_CONNECTIONS, Client, percentile
from bench.server import server
from synapse_worker.stubs import children

REQUESTS = 1000
IDLE_AFTER_S = 5.0
POOLS = f"""
[[pool]]
name = "burst"
price_per_hour_usd = 0.1
models = ["echo"]
min_workers = 0
max_workers = 2
idle_after_s = {IDLE_AFTER_S}
[pool.slots]
echo = 64
[pool.model_parameters.echo]
delay_ms = "50"
slots = "64"
[times]
scale_every_s = 0.25
"""
WATCH_EVERY_S = 0.02
TO_ZERO_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Burst:
    """One burst; times in seconds.

    `cold_start_s` is from the first request to the first worker that is up. `p50_s` and `p99_s`
    count from when a request could be worked on: since it was sent, or since that worker was up.
    `to_zero_s` is from the last answer until the last process of a worker is gone, of which the
    pool's idle time is `IDLE_AFTER_S`.
    """

    kind: str
    delivered: int
    first_error: str
    cold_start_s: float
    all_answered_s: float
    p50_s: float
    p99_s: float
    heartbeats: int
    most_workers: int
    to_zero_s: float


@dataclass(frozen=True, slots=True)
class _Answer:
    sent_at: float
    answered_at: float
    text: str
    heartbeats: int = 0


Ask = Callable[[int], Awaitable[_Answer]]


def measure() -> list[Burst]:
    """A burst of jobs, and one of streams whose callers wait on the line, each at a cold pool."""
    with server("echo", POOLS) as running:
        return uvloop.run(_measure(running.url, running.pid))


async def _measure(url: str, pid: int) -> list[Burst]:
    connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS)
    timeout = aiohttp.ClientTimeout(total=300)
    async with (
        Client(url) as client,
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
    ):

        async def job(number: int) -> _Answer:
            sent_at = time.perf_counter()
            answer = await client.run({"model": "echo", "prompt": str(number)})
            return _Answer(sent_at, time.perf_counter(), answer.body["result"]["text"])

        async def stream(number: int) -> _Answer:
            return await _stream(session, url, number)

        return [
            await _burst("jobs", job, url, pid),
            await _burst("streams on the line", stream, url, pid),
        ]


async def _burst(kind: str, ask: Ask, url: str, pid: int) -> Burst:
    if _tritons(pid):
        raise SystemExit("the pool is not at zero before the burst")
    began_at = time.perf_counter()
    watch = asyncio.create_task(_watch(url))
    asked = (ask(number) for number in range(REQUESTS))
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    ended_at = time.perf_counter()
    watch.cancel()
    up_at, most_workers = await watch
    answers = [each for each in outcomes if isinstance(each, _Answer)]
    errors = [each for each in outcomes if not isinstance(each, _Answer)]
    whole = [
        answer
        for number, answer in enumerate(outcomes)
        if isinstance(answer, _Answer) and answer.text == str(number)
    ]
    took_s = sorted(each.answered_at - max(each.sent_at, up_at) for each in answers) or [math.nan]
    return Burst(
        kind=kind,
        delivered=len(whole),
        first_error=repr(errors[0]) if errors else "",
        cold_start_s=up_at - began_at,
        all_answered_s=ended_at - began_at,
        p50_s=percentile(took_s, 0.50),
        p99_s=percentile(took_s, 0.99),
        heartbeats=sum(each.heartbeats for each in answers),
        most_workers=most_workers,
        to_zero_s=await _until_zero(pid, ended_at),
    )


async def _stream(session: aiohttp.ClientSession, url: str, number: int) -> _Answer:
    body = {"model": "echo", "prompt": str(number), "stream": True}
    sent_at, text, heartbeats = time.perf_counter(), "", 0
    async with session.post(f"{url}/v1/completions", json=body) as response:
        response.raise_for_status()
        async for line in response.content:
            if line.startswith(b":"):
                heartbeats += 1
            elif line.startswith(b"data: {"):
                text += "".join(_texts(line))
    return _Answer(sent_at, time.perf_counter(), text, heartbeats)


def _texts(line: bytes) -> list[str]:
    chunk = json.loads(line.removeprefix(b"data: "))
    return [choice["text"] for choice in chunk["choices"]]


async def _watch(url: str) -> tuple[float, int]:
    """When the first worker was up, and how many there were at most; until it is cancelled."""
    up_at, most = math.inf, 0
    try:
        while True:
            ready = await asyncio.to_thread(_ready, url)
            if ready and up_at == math.inf:
                up_at = time.perf_counter()
            most = max(most, ready)
            await asyncio.sleep(WATCH_EVERY_S)
    except asyncio.CancelledError:
        return up_at, most


def _ready(url: str) -> int:
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as response:
        lines = response.read().decode().splitlines()
    states = ('state="READY"', 'state="INFERRING"')
    return sum(
        int(float(line.split()[-1]))
        for line in lines
        if line.startswith("synapse_workers{") and any(state in line for state in states)
    )


async def _until_zero(pid: int, since: float) -> float:
    deadline = since + TO_ZERO_TIMEOUT_S
    while _tritons(pid):
        if time.perf_counter() > deadline:
            return math.inf
        await asyncio.sleep(WATCH_EVERY_S)
    return time.perf_counter() - since


def _tritons(pid: int) -> int:
    """Triton processes that the server has as children."""
    names = [_text(Path(f"/proc/{child}/comm")) for child in children(pid)]
    return sum(name.strip() == "tritonserver" for name in names)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:  # its process or thread has ended meanwhile
        return ""
