"""Whether our load generator is to be believed: wrk asks the same server the same, in turns.

wrk is a load generator in C, which takes next to nothing of the processor. It cannot do what most
of our measurements need: arrivals at random, jobs whose result is asked for by an id, streams. So
they have a client of their own, and this tells what that costs (`docs/adr/0040-*.md`).
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from bench.client import MAX_CONNECTIONS, Load, Refused, closed_loop
from bench.processor import processor_s
from bench.server import server

CLIENTS = (1, 8, 64)
WARM_UP_S = 2.0
REQUEST: dict[str, Any] = {"model": "echo", "prompt": "The future of AI is"}
PATH = "/v1/completions"

SCRIPT = """
wrk.method = "POST"
wrk.headers["content-type"] = "application/json"
wrk.body = [[%s]]
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"answers": %%d, "took_us": %%d, "p50_us": %%f, "p99_us": %%f, "errors": %%d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


class NoWrk(Exception):
    """It is not installed."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What one load generator saw, and what the server spent on a request meanwhile."""

    per_s: float
    p50_ms: float
    p99_ms: float
    server_ms: float


@dataclass(frozen=True, slots=True)
class Row:
    """The same number of clients by both, medians of the rounds; `ratio` is of pairs."""

    clients: int
    ours: Seen
    wrk: Seen
    ratio: float


def measure(rounds: int, seconds: float) -> list[Row]:
    """Both in turns against one server.

    Raises:
        NoWrk: it is not installed.
        RuntimeError: a request was not answered.
    """
    wrk = shutil.which("wrk")
    if wrk is None:
        raise NoWrk("wrk is not installed: it is a package of Debian and Homebrew of that name")
    with server(REQUEST["model"]) as running, tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "ask.lua")
        script.write_text(SCRIPT % json.dumps(REQUEST), encoding="utf-8")

        def ours(clients: int, for_s: float) -> Seen:
            before_s = processor_s(running.pid)
            load = uvloop.run(_closed_loop(running.url + PATH, clients, for_s))
            spent_s = processor_s(running.pid) - before_s
            p50_ms, p99_ms = load.quantile_ms(0.5), load.quantile_ms(0.99)
            return Seen(load.per_s, p50_ms, p99_ms, 1000 * spent_s / len(load.latencies_s))

        def theirs(clients: int) -> Seen:
            before_s = processor_s(running.pid)
            command = [wrk, "-t1", f"-c{clients}", f"-d{seconds:.0f}s", "-s", str(script)]
            told = told_by(subprocess.check_output([*command, running.url + PATH], text=True))
            spent_s = processor_s(running.pid) - before_s
            return Seen(
                1e6 * told["answers"] / told["took_us"],
                told["p50_us"] / 1000,
                told["p99_us"] / 1000,
                1000 * spent_s / told["answers"],
            )

        ours(8, WARM_UP_S)
        return [
            _row(clients, [(ours(clients, seconds), theirs(clients)) for _ in range(rounds)])
            for clients in CLIENTS
        ]


def told_by(output: str) -> dict[str, float]:
    """What our script wrote behind wrk's own words."""
    told: dict[str, float] = json.loads(output[output.rindex("{") :])
    if told["errors"] or not told["answers"]:
        raise RuntimeError(f"wrk was not answered well: {told}")
    return told


async def _closed_loop(url: str, clients: int, seconds: float) -> Load:
    connector = aiohttp.TCPConnector(limit=MAX_CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector) as session:

        async def ask() -> None:
            async with session.post(url, json=REQUEST) as response:
                await response.read()
                if response.status != 200:
                    raise Refused(f"HTTP {response.status}")

        return (await closed_loop(clients, seconds, ask)).without_errors()


def _row(clients: int, pairs: list[tuple[Seen, Seen]]) -> Row:
    ratio = statistics.median(ours.per_s / wrk.per_s for ours, wrk in pairs)
    return Row(clients, _median([pair[0] for pair in pairs]), _median([p[1] for p in pairs]), ratio)


def _median(seen: list[Seen]) -> Seen:
    figures = ([getattr(each, name) for each in seen] for name in Seen.__slots__)
    return Seen(*(statistics.median(values) for values in figures))
