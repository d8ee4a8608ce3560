"""The pools and models that the scenarios run on."""

from __future__ import annotations

from dataclasses import replace

from bench.simulator import facts
from bench.simulator.machine import Pace
from bench.simulator.pools import Kind
from synapse.domain import reference
from synapse.domain.batching import BatchPolicy
from synapse.domain.model import ModelSpec, Task
from synapse.domain.price_list import ECS_FEE
from synapse.domain.reference import SLOTS


def model(name: str) -> ModelSpec:
    """A model as the catalogue has it."""
    return ModelSpec(name, "1", Task.EMBED, 512, 0, SLOTS, BatchPolicy(16, 100_000))


MODELS = tuple(model(name) for name in reference.TIMES)


def kind(
    name: str, *, most: int = 20, models: frozenset[str] = frozenset(), fee: float = ECS_FEE
) -> Kind:
    """The pool `cpu`, `gpu` or `neuron`, of at most so many machines, for these models or all.

    `fee` is what who manages the machines takes on their price: 1 is nothing.
    """
    pool = replace(reference.pool(name, most=most, fee=fee), models=models)
    work = {each: of_model[name] for each, of_model in facts.TIMES.items()}
    return Kind(pool, Pace(SLOTS), facts.START[name], work)
