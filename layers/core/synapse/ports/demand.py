"""What the autoscaler sees of the demand, and how it is told of more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from synapse.domain.load import ModelDemand
from synapse.domain.routing import Need


class DemandSource(Protocol):
    """What is asked of each model at the moment, whoever asks it."""

    async def demand(self, now: float) -> Sequence[ModelDemand]:
        """What waits for workers and how much arrives, of every model with any of it.

        Raises:
            Unavailable: it could not be read.
        """
        ...


class Arrivals(Protocol):
    """Is told of the work that comes in."""

    def arrived(self, model: str, need: Need) -> None:
        """A request or a job came. Cheap, never blocks, never raises."""
        ...


class Waker(Protocol):
    """Reaches the autoscaler from wherever work comes in."""

    async def wake(self, model: str, need: Need) -> None:
        """Have a round made soon, in which the work is seen; often called for one and the same.

        Raises nothing: the next round by the clock sees it too.
        """
        ...


class StartTimes(Protocol):
    """How long the workers of each pool took to start, as was measured."""

    async def startup_s(self, pool: str) -> float | None:
        """From the demand to the first worker that answers; None if it was never measured.

        Cheap: asked for with every request that finds no worker. Raises nothing.
        """
        ...

    async def started(self, pool: str, seconds: float) -> None:
        """Add a measured start; the latest ones count most. Raises nothing."""
        ...
