"""A runner that finds no room for bronze waits a moment, where items are over in a moment."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from synapse.application.windows import BronzeWindows
from synapse.domain.errors import Unavailable
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import Clock, InFlight, Registry

WAIT_S = 5.0
LOOK_EVERY_S = 0.05

BRIEF_S = 1.0
"""An item that holds its slot no longer is over while one waits."""

MOST_WAIT = 100
"""Runners that wait for a model and pool at a time: each is a function that is paid for, and one of
those that an account may run at once."""


@dataclass(frozen=True, slots=True)
class RoomWait:
    """The windows of bronze, to who would come back seconds later if there were no room now.

    Between a look and the next of who comes back others take what was free: whoever stays gets it.
    """

    windows: BronzeWindows
    registry: Registry
    in_flight: InFlight
    clock: Clock
    sleep: Callable[[float], Awaitable[None]]

    async def may_begin(self, spec: ModelSpec, pool: Pool, tier: SlaTier) -> int | None:
        """As `BronzeWindows.may_begin`, but that nothing may is said after some seconds of looking.

        At once where many wait already, or items last long, or nobody knows how long.

        Raises:
            EngineUnavailable: no worker is up.
            Unavailable: the workers, or what is under way, could not be read.
        """
        most = await self.windows.may_begin(spec, pool, tier)
        if most != 0 or not await self._is_brief(spec, pool):
            return most
        # Whoever waits is counted as what is in flight is: one who dies counts for a minute.
        place, until = f"{pool.name}#waiting", self.clock() + WAIT_S
        entry = await self.in_flight.enter(spec.name, place, 1, MOST_WAIT, until, tier)
        if entry is None:
            return most
        try:
            for _ in range(round(WAIT_S / LOOK_EVERY_S)):
                await self.sleep(LOOK_EVERY_S)
                most = await self.windows.may_begin(spec, pool, tier)
                if most != 0:
                    break
        finally:
            await self.in_flight.leave(entry)
        return most

    async def _is_brief(self, spec: ModelSpec, pool: Pool) -> bool:
        try:
            rate = await self.registry.service_rate(spec.name, self.clock(), pool.name)
        except Unavailable:
            return False
        return rate.seconds_per_item is not None and rate.seconds_per_item <= BRIEF_S
