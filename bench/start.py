"""From nothing to the first answer: `synapse serve` over an empty folder, environments made."""

from __future__ import annotations

import json
import statistics
import time
import urllib.request
from dataclasses import dataclass

from bench.processor import own_s
from bench.server import resident_mib, server


@dataclass(frozen=True, slots=True)
class Start:
    """Of several starts, the medians and the least. Seconds count from the command.

    `processor_s` is what the server itself has spent by the first answer, its workers not counted.
    """

    healthy_s: float
    first_answer_s: float
    least_s: float
    processor_s: float
    memory_mib: float


def measure(models: str, rounds: int) -> Start:
    """Start with these models, the first of which writes text; ask it, and end all, in each round.

    Healthy is who has tried each model once.
    """
    runs = [_run(models) for _ in range(rounds)]
    healthy_s, first_s, processor_s, memory_mib = zip(*runs, strict=True)
    return Start(
        statistics.median(healthy_s),
        statistics.median(first_s),
        min(first_s),
        statistics.median(processor_s),
        statistics.median(memory_mib),
    )


def _run(models: str) -> tuple[float, float, float, float]:
    with server(models) as running:
        asked_at = time.perf_counter()
        _ask(running.url, models.partition(",")[0])
        first_s = running.start_s + time.perf_counter() - asked_at
        return running.start_s, first_s, own_s(running.pid), resident_mib(running.pid)


def _ask(url: str, model: str) -> None:
    body = json.dumps({"model": model, "prompt": "Hello", "max_tokens": 1}).encode()
    request = urllib.request.Request(
        f"{url}/v1/completions", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        if not json.load(response)["choices"]:
            raise SystemExit("the first answer is none")
