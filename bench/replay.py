"""`python -m bench.replay`: traces of LLM services replayed against one machine.

The same requests come at the same moments twice: on the line, streamed, by callers who wait so
long and no longer; and as durable jobs. How many they are is a share of what the machine was found
to bear.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import aiohttp
import uvloop

from bench.client import Client, Load, closed_loop, open_loop
from bench.engine_ratio import MODEL
from bench.server import server
from bench.streaming import one_stream, session_of_many
from bench.texts import WORDS
from bench.traces import TRACES, Asked, drawn, read

TOKENS_PER_WORD = 1.3
"""Of SmolLM2 on these words, about."""

MEASURING_CLIENTS = 16
DEADLINE_S = 30.0
MOST_TOKENS = 1500
"""The model's window is 2,048."""


@dataclass(slots=True)
class Lane:
    """What came of one trace on one lane; `first` is to the first token, where there is one."""

    name: str
    whole: Load
    first: Load
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Replayed:
    """A trace: what was asked, and what came of it."""

    trace: str
    asked: Sequence[Asked]
    capacity_per_s: float
    lanes: Sequence[Lane]


def main() -> None:
    """Replay, and print the figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.replay", description=__doc__)
    parser.add_argument("--trace", type=Path, help="a file with Azure's columns instead")
    parser.add_argument("--seconds", type=float, default=60.0, help="what a trace is pressed into")
    parser.add_argument("--load", type=float, default=0.6, help="share of what the machine bears")
    parser.add_argument("--lengths", type=float, default=1 / 32, help="share of the trace's tokens")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    makers = _makers(given.trace, given.seconds, given.lengths, given.seed)
    print(
        "| trace | lane | requests | answered | refused or failed | first token p50, p99 | whole |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- |")
    with server(MODEL) as running:
        for name, maker in makers.items():
            found = uvloop.run(replay(running.url, name, maker, given.seconds, given.load))
            print("\n".join(rows(found)), flush=True)


Maker = Callable[[int], list[Asked]]
"""About so many requests of a trace."""


def _makers(path: Path | None, seconds: float, share: float, seed: int) -> dict[str, Maker]:
    made: dict[str, Callable[..., list[Asked]]] = {
        name: partial(drawn, trace) for name, trace in TRACES.items()
    }
    if path is not None:
        made = {path.stem: partial(read, path)}
    return {
        name: partial(maker, seconds=seconds, share=share, seed=seed)
        for name, maker in made.items()
    }


async def replay(url: str, name: str, maker: Maker, seconds: float, load: float) -> Replayed:
    """Measure what the machine bears of such requests, then replay them on both lanes."""
    async with session_of_many() as session, Client(url) as client:
        capacity_per_s = await _capacity(session, url, maker(1000), seconds / 4)
        asked = maker(round(load * capacity_per_s * seconds))
        lanes = [await _on_the_line(session, url, asked), await _as_jobs(client, asked)]
    return Replayed(name, asked, capacity_per_s, lanes)


async def _capacity(
    session: aiohttp.ClientSession, url: str, sample: Sequence[Asked], seconds: float
) -> float:
    """Requests a second in a closed loop, in which many are on their way together."""
    takes = itertools.cycle(sample)

    async def one() -> None:
        asked = next(takes)
        await one_stream(session, url, prompt_of(asked), asked.output_tokens)

    return (await closed_loop(MEASURING_CLIENTS, seconds, one)).without_errors().per_s


async def _on_the_line(session: aiohttp.ClientSession, url: str, asked: Sequence[Asked]) -> Lane:
    lane, takes = Lane("on the line", Load(), Load()), iter(asked)
    headers = {"x-stainless-read-timeout": str(DEADLINE_S)}

    async def one() -> None:
        each = next(takes)
        stream = await one_stream(session, url, prompt_of(each), each.output_tokens, headers)
        lane.first.latencies_s.append(stream.first_s)
        lane.tokens += stream.tokens

    lane.whole = await open_loop(list(gaps_s(asked)), one)
    return lane


async def _as_jobs(client: Client, asked: Sequence[Asked]) -> Lane:
    lane, takes = Lane("jobs", Load(), Load()), iter(asked)

    async def one() -> None:
        each = next(takes)
        parameters = {"max_tokens": each.output_tokens, "temperature": 0.0, "ignore_eos": True}
        request = {"model": MODEL, "prompt": prompt_of(each), "parameters": parameters}
        answer = await client.run(request)
        lane.tokens += answer.body["usage"]["completion_tokens"]

    lane.whole = await open_loop(list(gaps_s(asked)), one)
    return lane


def gaps_s(asked: Sequence[Asked]) -> Iterator[float]:
    """From each request to the next, and from the start to the first."""
    before = 0.0
    for each in asked:
        yield each.at_s - before
        before = each.at_s


def prompt_of(asked: Asked) -> str:
    """A text of about so many tokens that no other request begins with."""
    tokens = min(asked.prompt_tokens, MOST_TOKENS)
    draw = random.Random(f"{asked.at_s}-{time.perf_counter_ns()}")
    return " ".join(draw.choices(WORDS, k=max(1, round(tokens / TOKENS_PER_WORD))))


def rows(found: Replayed) -> list[str]:
    """The lines of the table."""
    lines = []
    for lane in found.lanes:
        cells = [found.trace, lane.name, str(len(found.asked)), str(len(lane.whole.latencies_s))]
        cells += [_told(lane.whole.errors), _quantiles(lane.first), _quantiles(lane.whole)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _told(errors: Counter[str]) -> str:
    kinds: Counter[str] = Counter()
    for error, count in errors.items():
        kinds[error.partition(":")[0]] += count
    return ", ".join(f"{count} × {kind}" for kind, count in kinds.items()) or "0"


def _quantiles(load: Load) -> str:
    if not load.latencies_s:
        return "–"
    return f"{load.quantile_ms(0.50):,.0f}, {load.quantile_ms(0.99):,.0f} ms"


if __name__ == "__main__":
    main()
