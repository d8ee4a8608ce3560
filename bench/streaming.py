"""Streamed generations over HTTP beside the bare engine: first token, the next ones, tokens/s.

As in `engine_ratio`, both stand ready in the same run and take turns; what is compared are the
pairs of one round.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from bench.bare import ask, bare_process
from bench.client import Refused
from bench.engine_ratio import MODEL, PACKAGE, TOPICS
from bench.server import server

TOKENS = 32
MANY_STREAMS = 200
MANY_TOKENS = 16
DATA = b"data: "
DONE = b"[DONE]"
NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Stream:
    """When the first and the last text came, in seconds from the request, and the tokens."""

    first_s: float
    last_s: float
    tokens: int

    @property
    def per_token_s(self) -> float:
        """Mean time between tokens after the first."""
        return (self.last_s - self.first_s) / (self.tokens - 1)


@dataclass(frozen=True, slots=True)
class Round:
    """All streams of one side in one round, and the time that they took together."""

    streams: Sequence[Stream]
    seconds: float

    @property
    def first_ms(self) -> float:
        """The median time to the first token."""
        return statistics.median(stream.first_s for stream in self.streams) * 1000

    @property
    def per_token_ms(self) -> float:
        """The median of the mean times between tokens."""
        return statistics.median(stream.per_token_s for stream in self.streams) * 1000

    @property
    def tokens_per_s(self) -> float:
        """Of all streams together."""
        return sum(stream.tokens for stream in self.streams) / self.seconds


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians over the rounds at one number of streams; overheads and ratio are those of pairs."""

    streams: int
    first_ms: float
    bare_first_ms: float
    first_overhead_ms: float
    per_token_ms: float
    bare_per_token_ms: float
    per_token_overhead_ms: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Held:
    """Many streams open at once: how many came to their end, and how long all took."""

    streams: int
    whole: int
    seconds: float
    first_error: str


def measure(concurrencies: tuple[int, ...], rounds: int) -> tuple[list[Comparison], Held]:
    """Compare at each number of streams, then hold many open."""
    with server(MODEL) as running, bare_process("bare_engine.py", PACKAGE) as bare:
        compared = [
            asyncio.run(_compare(running.url, bare, streams, rounds)) for streams in concurrencies
        ]
        return compared, asyncio.run(_hold(running.url))


async def _compare(
    url: str, bare: subprocess.Popen[str], concurrency: int, rounds: int
) -> Comparison:
    pairs: list[tuple[Round, Round]] = []
    async with session_of_many() as session:
        for number in range(rounds + 1):
            prompts = [_prompt(number, each) for each in range(concurrency)]
            through = await _system(session, url, prompts)
            alone = await asyncio.to_thread(_alone, bare, prompts)
            if number > 0:  # the first round warms both up
                pairs.append((through, alone))
    median = statistics.median
    return Comparison(
        streams=concurrency,
        first_ms=median(system.first_ms for system, _ in pairs),
        bare_first_ms=median(alone.first_ms for _, alone in pairs),
        first_overhead_ms=median(system.first_ms - alone.first_ms for system, alone in pairs),
        per_token_ms=median(system.per_token_ms for system, _ in pairs),
        bare_per_token_ms=median(alone.per_token_ms for _, alone in pairs),
        per_token_overhead_ms=median(
            system.per_token_ms - alone.per_token_ms for system, alone in pairs
        ),
        ratio=median(system.tokens_per_s / alone.tokens_per_s for system, alone in pairs),
    )


async def _hold(url: str) -> Held:
    started = time.perf_counter()
    async with session_of_many() as session:
        ends = await asyncio.gather(
            *(one_stream(session, url, _prompt(0, n), MANY_TOKENS) for n in range(MANY_STREAMS)),
            return_exceptions=True,
        )
    errors = [str(end) for end in ends if isinstance(end, BaseException)]
    seconds = time.perf_counter() - started
    return Held(MANY_STREAMS, MANY_STREAMS - len(errors), seconds, errors[0] if errors else "")


def session_of_many() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=300)
    )


def _prompt(salt: int, number: int) -> str:
    """Different texts of like length: no prefix cache favours either side."""
    return f"Part {salt}.{number}. A short story about {TOPICS[number % len(TOPICS)]}: once upon"


async def _system(session: aiohttp.ClientSession, url: str, prompts: Sequence[str]) -> Round:
    started = time.perf_counter()
    streams = await asyncio.gather(*(one_stream(session, url, each, TOKENS) for each in prompts))
    return Round(streams, time.perf_counter() - started)


async def one_stream(
    session: aiohttp.ClientSession,
    url: str,
    prompt: str,
    tokens: int,
    headers: Mapping[str, str] = NO_HEADERS,
) -> Stream:
    """One streamed completion, read to its end.

    Raises:
        Refused: it was not begun, or broke off.
    """
    body = {
        "model": MODEL,
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    started = time.perf_counter()
    came: list[float] = []
    written = 0
    async with session.post(f"{url}/v1/completions", json=body, headers=headers) as response:
        if response.status != 200:
            raise Refused(f"HTTP {response.status}: {await response.text()}")
        async for line in response.content:
            data = line.strip().removeprefix(DATA)
            if data == DONE:
                return Stream(came[0], came[-1], written)
            if not line.startswith(DATA):
                continue
            event = _event(data)
            if any(choice["text"] for choice in event["choices"]):
                came.append(time.perf_counter() - started)
            written = (event.get("usage") or {}).get("completion_tokens", written)
    raise Refused("the stream broke off before its end")


def _event(data: bytes) -> dict[str, Any]:
    event: dict[str, Any] = json.loads(data)
    if "error" in event:
        raise Refused(f"the stream ended with an error: {event['error']}")
    return event


def _alone(bare: subprocess.Popen[str], prompts: Sequence[str]) -> Round:
    answer = ask(bare, {"prompts": list(prompts), "tokens": TOKENS})
    return Round([Stream(*each) for each in answer["streams"]], answer["seconds"])
