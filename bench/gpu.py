"""`make bench-gpu`: the worker on a real NVIDIA GPU, through the whole stack of one machine.

Beside it stands vLLM alone, in the same image with the same settings; both take turns. Without a
GPU, or without a Docker that can give containers one, it says what is missing, with status 2.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import gpu_plot
from bench.bare import ask
from bench.client import percentile
from bench.engine_ratio import MODEL, TOPICS
from bench.gpu_machine import Gpu, Missing, Run, Samples, gpu_of, said_by, sampled
from bench.gpu_worker import (
    STREAMS,
    bare_engine,
    build_image,
    model_in,
    pools,
    wait_ready,
    worker,
)
from bench.server import server
from bench.streaming import Round, Stream, one_stream, session_of_many

CONCURRENCIES = (1, 8, 32, STREAMS)
TOKENS = 128
ROUNDS = 3
LOAD_S = 60.0
IMAGES = Path(__file__).parents[1] / "docs" / "images"


@dataclass(frozen=True, slots=True)
class Row:
    """One number of streams: medians of the rounds, and the median of the pairs' ratios."""

    streams: int
    system: float
    bare: float
    ratio: float
    first_p50_ms: float
    first_p99_ms: float


@dataclass(frozen=True, slots=True)
class Found:
    """All that was measured; starts run from the container's command to the first token."""

    gpu: Gpu
    cold_s: float
    warm_s: float
    rows: Sequence[Row]
    load: Round
    samples: Samples


def main(arguments: Sequence[str] | None = None, run: Run = said_by) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="pairs of runs")
    parser.add_argument("--seconds", type=float, default=LOAD_S, help="length of the long load")
    given = parser.parse_args(arguments)
    try:
        gpu = gpu_of(run)
        build_image()
        found = measure(gpu, given.rounds, given.seconds)
    except Missing as missing:
        print(f"bench-gpu: {missing}", file=sys.stderr)
        return 2
    print(table(found))
    gpu_plot.draw(found.samples, found.rows, IMAGES, "gpu")
    return 0


def measure(gpu: Gpu, rounds: int, seconds: float) -> Found:
    """Start the worker twice, compare it with the bare engine, then keep it busy."""
    with tempfile.TemporaryDirectory(prefix="synapse-bench-") as folder:
        model = model_in(Path(folder))
        with worker(model) as first:
            wait_ready(first)  # fetches the weights, which is not measured
        started = time.perf_counter()
        with worker(model) as running:
            wait_ready(running)
            cold_s = _to_first_token(started)
            started = time.perf_counter()
            running.start_again()
            wait_ready(running)
            warm_s = _to_first_token(started)
            with server(MODEL, pools()) as synapse, bare_engine(model) as bare:
                rows = [
                    asyncio.run(_compare(synapse.url, bare, streams, rounds))
                    for streams in CONCURRENCIES
                ]
            with server(MODEL, pools()) as synapse, sampled() as samples:
                load = asyncio.run(_keep_busy(synapse.url, seconds))
    return Found(gpu, cold_s, warm_s, rows, load, samples)


def _to_first_token(started: float) -> float:
    with server(MODEL, pools()) as synapse:
        asked = time.perf_counter()
        [stream] = asyncio.run(_at_once(synapse.url, _prompts("start", 1))).streams
        return asked - started + stream.first_s


def _prompts(salt: object, count: int) -> list[str]:
    """Different from the first word on: no prefix cache favours either side."""
    return [
        f"{salt}.{number}. A long story about {TOPICS[number % len(TOPICS)]}: once upon"
        for number in range(count)
    ]


async def _at_once(url: str, prompts: Sequence[str]) -> Round:
    async with session_of_many() as session:
        started = time.perf_counter()
        asked = (one_stream(session, url, prompt, TOKENS) for prompt in prompts)
        streams = await asyncio.gather(*asked)
        return Round(streams, time.perf_counter() - started)


async def _compare(url: str, bare: subprocess.Popen[str], streams: int, rounds: int) -> Row:
    pairs: list[tuple[Round, Round]] = []
    for number in range(rounds + 1):
        prompts = _prompts(number, streams)
        through = await _at_once(url, prompts)
        answer = await asyncio.to_thread(ask, bare, {"prompts": prompts, "tokens": TOKENS})
        alone = Round([Stream(*each) for each in answer["streams"]], answer["seconds"])
        if number > 0:  # the first round warms both up
            pairs.append((through, alone))
    return row_of(streams, pairs)


def row_of(streams: int, pairs: Sequence[tuple[Round, Round]]) -> Row:
    """What pairs of rounds, through the system and without it, come to."""
    first_ms = sorted(1000 * each.first_s for through, _ in pairs for each in through.streams)
    median = statistics.median
    return Row(
        streams=streams,
        system=median(through.tokens_per_s for through, _ in pairs),
        bare=median(alone.tokens_per_s for _, alone in pairs),
        ratio=median(through.tokens_per_s / alone.tokens_per_s for through, alone in pairs),
        first_p50_ms=percentile(first_ms, 0.5),
        first_p99_ms=percentile(first_ms, 0.99),
    )


async def _keep_busy(url: str, seconds: float) -> Round:
    """As many callers as there are slots, each with a new request as soon as it is answered."""
    numbers = itertools.count()
    started = time.perf_counter()
    streams: list[Stream] = []
    async with session_of_many() as session:

        async def caller(clock: Callable[[], float]) -> None:
            while clock() - started < seconds:
                [prompt] = _prompts(f"load-{next(numbers)}", 1)
                streams.append(await one_stream(session, url, prompt, TOKENS))

        await asyncio.gather(*(caller(time.perf_counter) for _ in range(STREAMS)))
    return Round(streams, time.perf_counter() - started)


def table(found: Found) -> str:
    """All figures, as tables in Markdown."""
    first_ms = sorted(1000 * stream.first_s for stream in found.load.streams)
    seen = found.samples
    lines = [
        f"{found.gpu.name}, {found.gpu.memory_mib} MiB, driver {found.gpu.driver}; {MODEL}, "
        f"{TOKENS} tokens a stream",
        "",
        "| streams | tokens/s | bare vLLM | system ÷ bare | goal | first token p50 | p99 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| {row.streams} | {row.system:,.0f} | {row.bare:,.0f} | {row.ratio:.3f} | ≥ 0.95 "
            f"| {row.first_p50_ms:.1f} ms | {row.first_p99_ms:.1f} ms |"
            for row in found.rows
        ),
        "",
        "| figure | measured | goal |",
        "| --- | --- | --- |",
        f"| cold start: a new container to the first token | {found.cold_s:.1f} s | |",
        f"| warm start: the same container started again | {found.warm_s:.1f} s | |",
        f"| {STREAMS} callers for {found.load.seconds:.0f} s, tokens/s "
        f"| {found.load.tokens_per_s:,.0f} | |",
        f"| first token then, p50 and p99 | {percentile(first_ms, 0.5):.1f} and "
        f"{percentile(first_ms, 0.99):.1f} ms | |",
        f"| GPU at work, mean of {len(seen.seen)} samples | {seen.mean_percent:.0f} % | > 70 % |",
        f"| samples with 70 % or more | {seen.busy_share:.0%} | |",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
