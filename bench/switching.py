"""How long a worker takes to load a model, to unload it, and to put one in the place of another."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable
from dataclasses import dataclass
from pathlib import Path

from synapse_worker.agent import Agent, AgentConfig
from synapse_worker.config import WorkerConfig

ROOT = Path(__file__).parents[1]
SPARE_BYTES = 20 << 20
"""What a model takes differs a little from time to time; less than the smallest model."""

MODELS = ("echo", "all-minilm-l6-v2", "smollm2-135m-instruct")


@dataclass(frozen=True)
class Switch:
    """Medians, in seconds. `switch_s`: another model gives way first, as there is room for one."""

    model: str
    load_s: float
    unload_s: float
    switch_s: float
    memory_mib: float


def measure(rounds: int) -> list[Switch]:
    """Every model `rounds` times, after one load of each that is not counted."""
    return asyncio.run(_measure(rounds))


async def _measure(rounds: int) -> list[Switch]:
    with tempfile.TemporaryDirectory() as state:
        worker = WorkerConfig(models=(), venv=ROOT / ".venv-worker", state_dir=Path(state))
        agent = Agent(AgentConfig(worker))
        await agent.start()
        try:
            loads, sizes = await _loads(agent, rounds)
        finally:
            await agent.stop()
        # Room for the largest alone: each load finds another one in its way.
        one = Agent(AgentConfig(worker, memory_budget_bytes=max(sizes.values()) + SPARE_BYTES))
        await one.start()
        try:
            switches = await _switches(one, rounds)
        finally:
            await one.stop()
    return [
        Switch(
            model,
            load_s=statistics.median(load_s for load_s, _ in loads[model]),
            unload_s=statistics.median(unload_s for _, unload_s in loads[model]),
            switch_s=statistics.median(switches[model]),
            memory_mib=sizes[model] / (1 << 20),
        )
        for model in MODELS
    ]


async def _loads(
    agent: Agent, rounds: int
) -> tuple[dict[str, list[tuple[float, float]]], dict[str, int]]:
    """Times to load and to unload, and the memory, of each alone."""
    times: dict[str, list[tuple[float, float]]] = {model: [] for model in MODELS}
    sizes: dict[str, int] = {}
    for turn in range(rounds + 1):
        for model in MODELS:
            loaded_s = await _timed(agent.load(model))
            known = next(each for each in agent.snapshot().models if each.name == model)
            sizes[model] = known.memory_bytes or 0
            unloaded_s = await _timed(agent.unload(model))
            if turn:
                times[model].append((loaded_s, unloaded_s))
    return times, sizes


async def _switches(agent: Agent, rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {model: [] for model in MODELS}
    largest = MODELS[-1]
    await agent.load(largest)
    for _ in range(rounds):
        for model in MODELS[:-1]:
            times[model].append(await _timed(agent.load(model)))
            times[largest].append(await _timed(agent.load(largest)))
    return times


async def _timed(work: Awaitable[None]) -> float:
    started_at = time.perf_counter()
    await work
    return time.perf_counter() - started_at
