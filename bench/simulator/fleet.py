"""The pools and models that the scenarios run on."""

from __future__ import annotations

from bench.simulator import facts
from bench.simulator.machine import Pace
from bench.simulator.pools import Kind
from synapse.domain.batching import BatchPolicy
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool

SLOTS = 8
"""How many items a worker takes at once; they share it (company 1)."""

ACCELERATOR = {"cpu": "cpu", "gpu": "gpu", "neuron": "neuron"}
INSTANCE = {"cpu": "c7g.xlarge", "gpu": "g6.xlarge", "neuron": "inf2.xlarge"}
START = {
    "cpu": facts.ECS_CPU_START,
    "gpu": facts.ECS_GPU_START,
    "neuron": facts.ECS_GPU_START,
}
IDLE_S = 300.0


def model(name: str) -> ModelSpec:
    """A model as the catalogue has it."""
    return ModelSpec(name, "1", Task.EMBED, 512, 0, SLOTS, BatchPolicy(16, 100_000))


MODELS = tuple(model(name) for name in ("embed", "rerank", "rerank-64"))


def kind(name: str, *, most: int = 20, models: frozenset[str] = frozenset()) -> Kind:
    """The pool `cpu`, `gpu` or `neuron`, of at most so many machines, for these models or all."""
    pool = Pool(
        name,
        ACCELERATOR[name],
        models=models,
        price_per_hour_usd=facts.USD_HOUR[INSTANCE[name]],
        min_workers=0,
        max_workers=most,
        idle_after_s=IDLE_S,
        startup_s=START[name].p50_s,
    )
    work = {
        "embed": facts.EMBED[name],
        "rerank": facts.RERANK[name],
        "rerank-64": facts.RERANK_LONG[name],
    }
    return Kind(pool, Pace(SLOTS), START[name], work)
