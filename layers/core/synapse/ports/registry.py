"""What is served, and how it is doing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from synapse.domain.estimate import ServiceRate
from synapse.domain.model import ModelSpec, ServiceSample, WorkerHealth
from synapse.domain.pool import Pool


class Registry(Protocol):
    """What is served and how it is doing."""

    async def models(self) -> Sequence[ModelSpec]:
        """All served models, by name."""
        ...

    async def model(self, name: str) -> ModelSpec | None:
        """The model of that name, or None."""
        ...

    async def pools(self, model: str) -> Sequence[Pool]:
        """The pools that serve a model: the first choice, then the fallbacks in order."""
        ...

    async def record_service(self, sample: ServiceSample, now: float) -> None:
        """Add to what was measured of a model's speed in a pool.

        What is recorded for time 0 is a guess, before all work.
        """
        ...

    async def service_rate(self, model: str, now: float, pool: str = "") -> ServiceRate:
        """What was measured of a model lately (the last few minutes with any work in them).

        In one pool, or in all of them together where none is named. Guesses count only until work
        was measured.
        """
        ...

    async def record_health(self, health: WorkerHealth) -> None:
        """Remember what the pinger saw."""
        ...

    async def health(self) -> Sequence[WorkerHealth]:
        """The last that was seen of every (model, pool) that is served."""
        ...
