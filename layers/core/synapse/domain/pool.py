"""Pools of like workers: what they run on, what they cost, and how many of them there may be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from synapse.domain.extension import NO_EXTENSIONS, Extensions
from synapse.domain.model import ModelSpec


class Accelerator(StrEnum):
    """What a worker's models run on."""

    CPU = "cpu"
    GPU = "gpu"
    NEURON = "neuron"


IN_RUNNER = "runner"
"""The endpoint of a pool whose engine is inside its runner: one for each environment of it."""

FALLBACK_ORDER = (Accelerator.GPU, Accelerator.NEURON, Accelerator.CPU)
"""Where a request goes that no pool can answer in its time: the fastest kind first."""


@dataclass(frozen=True, slots=True)
class WarmWindow:
    """`workers` of a pool are kept up for `model` at these times, work or no work.

    `days` are those of the week, 0 being Monday; `from_minute` to `until_minute` (exclusive) are
    minutes of the day in `timezone`. Data, not code: nothing else says what is to be warm.
    """

    model: str
    workers: int = 1
    days: frozenset[int] = frozenset(range(7))
    from_minute: int = 0
    until_minute: int = 24 * 60
    timezone: str = "UTC"


@dataclass(frozen=True, slots=True)
class Pool:
    """A set of like workers: how to reach them, what they cost, how many there may be.

    `runner` is the ARN of the pool's runner function on AWS and empty on one machine.
    `endpoint` is host:port of an engine's gRPC service: that of the pool's only worker where it
    is given with the pool, else that of the one of its workers that was chosen, whose id is
    `worker` then. `price_per_hour_usd` is one worker's price. `models` are those it may serve, all
    if empty. A worker takes about `startup_s` from nothing to its first answer; a pool without
    work for `idle_after_s` goes down to `min_workers`. `slots` says, by model, how many items one
    of its workers takes at once where that is not what the catalogue says. With `loads_on_demand`
    a worker that is up need not have all of the models: it loads one when work waits for it.
    `extensions` are those that its engines have, None if all that each model lists. With
    `paid_by_call` a worker is paid while it runs what it is called for, and for nothing between.
    With `beats` heartbeats tell which of its workers are up, even where its endpoint is given.
    """

    name: str
    accelerator: str
    endpoint: str = ""
    runner: str = ""
    price_per_hour_usd: float = 0.0
    models: frozenset[str] = frozenset()
    min_workers: int = 1
    max_workers: int = 1
    idle_after_s: float = 300.0
    startup_s: float = 5.0
    warm: tuple[WarmWindow, ...] = ()
    worker: str = ""
    slots: Mapping[str, int] = field(default_factory=dict, hash=False)
    loads_on_demand: bool = False
    extensions: Extensions | None = None
    paid_by_call: bool = False
    beats: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.min_workers <= self.max_workers:
            raise ValueError(
                f"pool {self.name!r}: min_workers and max_workers must be 0 ≤ "
                f"{self.min_workers} ≤ {self.max_workers}"
            )

    @property
    def is_fixed(self) -> bool:
        """Whether its one worker runs elsewhere, so that nobody here starts or stops it."""
        return bool(self.endpoint) and not self.worker

    @property
    def runs_in_runner(self) -> bool:
        """Whether its engine is inside its runner, where nobody else can call it."""
        return self.endpoint == IN_RUNNER

    @property
    def shares_its_runner(self) -> bool:
        """Whether engine and runner are one environment, as others see it or as that runner does.

        The runner knows its engine's address. But of pools with an address no others are paid by
        the call, or have heartbeats.
        """
        return self.runs_in_runner or (self.is_fixed and (self.paid_by_call or self.beats))

    @property
    def fixed_workers(self) -> int:
        """How many workers of a fixed pool take calls: the one, or as many as its calls bring."""
        return max(1, self.max_workers)

    def slots_of(self, model: ModelSpec) -> int:
        """How many items of the model one of its workers takes at once."""
        return self.slots.get(model.name, model.slots)

    def extensions_of(self, model: ModelSpec) -> Extensions:
        """What the model does on its workers beyond the contract of its task."""
        return model.extensions if self.extensions is None else model.extensions & self.extensions

    def lacks(self, required: Extensions) -> Extensions:
        """Which of the extensions its engines are known not to have."""
        return NO_EXTENSIONS if self.extensions is None else required - self.extensions

    def serves(self, model: str) -> bool:
        """Whether its workers may run the model."""
        return not self.models or model in self.models


@dataclass(frozen=True, slots=True)
class PoolSize:
    """How many workers of a pool are wanted, and how many of those answer or are on their way."""

    desired: int
    ready: int
    starting: int
