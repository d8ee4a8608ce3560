"""How many batches of bronze may wait for room at their runners, and how many do.

Who waits is counted as what is in flight is: who dies counts until the minute ends in which he
would have waited no more.
"""

from __future__ import annotations

from dataclasses import dataclass

from synapse.application.windows import BronzeWindows
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import Clock, Entry, InFlight, Registry

PLACES_S = 5.0
"""As many batches may wait as their pool is done with in so long."""

BRIEF_S = 1.0
"""An item that holds its slot no longer is over while one waits."""

MOST_WAIT = 8
"""Runners that wait for a model and pool at a time, at most: each is a function that is paid for,
and one of those that an account may run at once."""


@dataclass(frozen=True, slots=True)
class WaitingPlaces:
    """The places of all pools, each for a batch that waits there for its items to be let in."""

    windows: BronzeWindows
    in_flight: InFlight
    registry: Registry
    clock: Clock

    async def most(self, spec: ModelSpec, pool: Pool, items: int) -> int:
        """How many batches of so many items may wait; none where those last long.

        Raises:
            Unavailable: the workers, or how long items last, could not be read.
        """
        # A runner with its engine in itself is a worker: it is not to stand still with both.
        if pool.shares_its_runner:
            return 0
        rate = await self.registry.service_rate(spec.name, self.clock(), pool.name)
        slots = await self.windows.slots(spec, pool)
        return most_waiting(slots, rate.of_items(spec.task).seconds_per_item, items)

    async def take(self, spec: ModelSpec, pool: Pool, items: int, until: float) -> Entry | None:
        """Count a batch that waits; None if no place is free. It leaves as what is in flight does.

        Raises:
            Unavailable: it could not be counted, or not told how many may wait.
        """
        most = await self.most(spec, pool, items)
        if most <= 0:
            return None
        return await self.in_flight.enter(spec.name, _place(pool), 1, most, until, SlaTier.BRONZE)

    async def taken(self, spec: ModelSpec, pool: Pool) -> int:
        """How many batches wait.

        Raises:
            Unavailable: they could not be counted.
        """
        return await self.in_flight.count(spec.name, _place(pool))


def most_waiting(slots: int, seconds_per_item: float | None, items: int) -> int:
    """How many batches of so many items may wait at once for a pool of so many slots.

    As many as it is done with in `PLACES_S`: what waits is claimed, so that the autoscaler does not
    see it. None where items last long, or nobody knows how long.
    """
    if seconds_per_item is None or seconds_per_item > BRIEF_S:
        return 0
    done = slots * PLACES_S / max(seconds_per_item, 1e-6)
    return min(MOST_WAIT, int(done / items))


def _place(pool: Pool) -> str:
    return f"{pool.name}#waiting"
