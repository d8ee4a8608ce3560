"""How much room for bronze a life finds, as dispatcher and runners are told."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import cast

from synapse.adapters.local.slots import SlotLedger
from synapse.application.entrance import Entrance
from synapse.application.waiting import WaitingPlaces
from synapse.application.windows import BronzeWindows
from synapse.domain.estimate import ServiceRate
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.routing import Decision, Need, PoolView, route
from synapse.domain.window import Opening
from synapse.ports import Registry
from tests.fakes import FakeClock
from tests.lives.deployments import POOLS

SLOTS = 100
"""Of each pool: enough for all that there ever is."""


@dataclass
class Rooms:
    """Room for so many items at a time, and `back_after` so many looks of who waits for all.

    Stands in for the windows and the registry that an entrance asks. Items are brief: who may wait
    does.
    """

    clock: FakeClock
    items: int = SLOTS
    back_after: int | None = None
    waiting: int = 0
    slots_taken: SlotLedger = field(init=False)

    def __post_init__(self) -> None:
        self.slots_taken = SlotLedger(self.clock)

    def set(self, items: int, back_after: int | None = None, waiting: int = 0) -> None:
        """From now on; so many others wait at runners."""
        self.items, self.back_after, self.waiting = items, back_after, waiting

    def entrance(self) -> Entrance:
        """Of the runners."""
        windows = cast(BronzeWindows, self)
        return Entrance(windows, self.slots_taken, self.places(), self.clock, self._sleep)

    def places(self) -> WaitingPlaces:
        """Where their batches wait."""
        windows, registry = cast(BronzeWindows, self), cast(Registry, self)
        return Places(windows, self.slots_taken, registry, self.clock, self)

    async def _sleep(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await asyncio.sleep(0)
        if self.back_after is not None:
            self.back_after -= 1
            if self.back_after <= 0:
                self.set(SLOTS)

    async def decide(self, spec: ModelSpec, need: Need) -> Decision:
        """All pools, each with this room."""
        return route(need, [PoolView(pool, SLOTS, ready=1, room=self.items) for pool in POOLS])

    async def may_begin(self, spec: ModelSpec, pool: Pool, tier: SlaTier) -> int | None:
        """As `BronzeWindows`."""
        return self.items

    async def opening(self, spec: ModelSpec, pool: Pool, items: int) -> Opening:
        """As `BronzeWindows`."""
        in_flight = await self.slots_taken.count(spec.name, pool.name)
        return Opening(SLOTS, in_flight + self.items, in_flight)

    async def slots(self, spec: ModelSpec, pool: Pool) -> int:
        """As `BronzeWindows`."""
        return SLOTS

    async def service_rate(self, model: str, now: float, pool: str = "") -> ServiceRate:
        """As the registry."""
        return ServiceRate(10, 0.1)


@dataclass(frozen=True, slots=True)
class Places(WaitingPlaces):
    """Of which others have some."""

    rooms: Rooms

    async def taken(self, spec: ModelSpec, pool: Pool) -> int:
        """See there."""
        return self.rooms.waiting + await WaitingPlaces.taken(self, spec, pool)
