"""Traces of LLM services: when requests come and how long they are, drawn or read from a file.

Drawn are Azure's LLM inference traces of 2023 (github.com/Azure/AzurePublicDataset, CC-BY;
Splitwise, arXiv 2311.18677): rates, bursts and lengths as they were counted there, the requests
themselves not.
"""

from __future__ import annotations

import csv
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from bench.simulator.facts import Z99
from bench.simulator.traces import CODE_PEAK, bursty
from bench.simulator.workload import Rate, Traffic, arrivals, day
from synapse.domain.job import SlaTier

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
COLUMNS = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")
"""Those of Azure's files."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: when it comes (seconds from the start), what it holds and what it is to write."""

    at_s: float
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens, as a logarithmic normal distribution with this median and 99th percentile."""

    median: float
    p99: float

    def draw(self, chance: random.Random) -> float:
        """One length."""
        spread = math.log(self.p99 / self.median) / Z99
        return self.median * math.exp(chance.gauss(0.0, spread))


@dataclass(frozen=True, slots=True)
class Trace:
    """What is known of a trace: its shape over `length_s`, and its lengths."""

    source: str
    length_s: float
    shape: Callable[[float, int], Rate]
    prompts: Lengths
    outputs: Lengths


TRACES = {
    "bursty": Trace(
        "Azure 2023, code: at most 3.8 times the mean in a minute, next to nothing in others",
        HOUR_S,
        lambda length_s, seed: bursty(length_s, CODE_PEAK, seed),
        Lengths(1469, 7436),
        Lengths(13, 249),
    ),
    "diurnal": Trace(
        "Azure 2023, conversation: a day from valley to peak 1 : 3.3 and back",
        DAY_S,
        lambda length_s, seed: day(length_s),
        Lengths(1020, 4142),
        Lengths(129, 601),
    ),
}


def drawn(trace: Trace, count: int, seconds: float, share: float, seed: int) -> list[Asked]:
    """About `count` requests of the whole trace, within `seconds`, at `share` of its lengths."""
    chance = random.Random(seed)
    shape = trace.shape(trace.length_s, seed)
    faster = trace.length_s / seconds

    def rate(at: float) -> float:
        return shape(at * faster)

    traffic = Traffic("", SlaTier.SILVER, count / seconds, rate)
    return [
        _asked(come.at, trace.prompts.draw(chance), trace.outputs.draw(chance), share)
        for come in arrivals(traffic, seconds, chance)
    ]


def read(path: Path, count: int, seconds: float, share: float, seed: int) -> list[Asked]:
    """About `count` requests of a file with Azure's columns, likewise.

    Raises:
        ValueError: the file has other columns, or a row that cannot be read.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        if not set(COLUMNS) <= set(rows.fieldnames or ()):
            raise ValueError(f"{path}: expected the columns {', '.join(COLUMNS)}")
        came = [_row(path, number, row) for number, row in enumerate(rows, start=2)]
    if not came:
        raise ValueError(f"{path}: there are no requests in it")
    return _thinned(came, count, seconds, share, random.Random(seed))


def _row(path: Path, number: int, row: dict[str, str]) -> tuple[float, int, int]:
    try:
        # Azure's clock has a digit more than a datetime.
        at_s = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
        return at_s, int(row["ContextTokens"]), int(row["GeneratedTokens"])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: line {number} cannot be read: {error}") from error


def _thinned(
    came: Sequence[tuple[float, int, int]],
    count: int,
    seconds: float,
    share: float,
    chance: random.Random,
) -> list[Asked]:
    ordered = sorted(came)
    first_s, length_s = ordered[0][0], max(1e-9, ordered[-1][0] - ordered[0][0])
    kept = min(1.0, count / len(ordered))
    return [
        _asked((at_s - first_s) / length_s * seconds, prompt, output, share)
        for at_s, prompt, output in ordered
        if chance.random() < kept
    ]


def _asked(at_s: float, prompt: float, output: float, share: float) -> Asked:
    return Asked(at_s, max(1, round(prompt * share)), max(1, round(output * share)))
