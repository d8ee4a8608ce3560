"""How much bronze a pool takes beside better tiers, as things stand (`domain.window`)."""

from __future__ import annotations

from dataclasses import dataclass

from synapse.application.company import Companies
from synapse.application.placement import nobody_up
from synapse.application.roster import Crew, Roster
from synapse.domain.errors import EngineUnavailable
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.window import Opening, bronze_opening
from synapse.ports import InFlight


@dataclass(frozen=True, slots=True)
class BronzeWindows:
    """The windows of all pools."""

    roster: Roster
    in_flight: InFlight
    companies: Companies

    async def room(self, spec: ModelSpec, pool: Pool, ready: int) -> int:
        """How many more items of bronze may start in a pool of so many workers, as `seen`."""
        return (await self.seen(spec, pool, ready)).room

    async def seen(self, spec: ModelSpec, pool: Pool, ready: int) -> Opening:
        """What bronze finds in a pool of so many workers.

        Raises:
            Unavailable: what is under way, or what company does, could not be read.
        """
        traffic = await self.in_flight.traffic_of(spec.name, pool.name)
        slots = ready * pool.slots_of(spec)
        company = await self.companies.of(spec, pool, traffic, ready)
        return bronze_opening(traffic, slots, company, ready)

    async def limit(self, spec: ModelSpec, pool: Pool, items: int) -> int:
        """The most items of all tiers that may be in flight; raises as `opening` does."""
        return (await self.opening(spec, pool, items)).limit

    async def opening(self, spec: ModelSpec, pool: Pool, items: int) -> Opening:
        """What the next items of bronze, so many, find in a pool with the workers that are up.

        Raises:
            Unavailable: the workers, what is under way, or what company does, could not be read.
        """
        traffic = await self.in_flight.traffic_of(spec.name, pool.name)
        ready = _ready(pool, await self.roster.crew(spec.name, pool.name))
        slots = ready * pool.slots_of(spec)
        company = await self.companies.of(spec, pool, traffic, ready)
        return bronze_opening(traffic, slots, company, ready, items)

    async def slots(self, spec: ModelSpec, pool: Pool) -> int:
        """Those of all workers of a pool that are up.

        Raises:
            Unavailable: the workers could not be read.
        """
        return _ready(pool, await self.roster.crew(spec.name, pool.name)) * pool.slots_of(spec)

    async def may_begin(self, spec: ModelSpec, pool: Pool, tier: SlaTier) -> int | None:
        """How many items of a tier may begin there now: of bronze as many as have room, else all.

        Raises:
            EngineUnavailable: no worker is up.
            Unavailable: the workers, or what is under way, could not be read.
        """
        crew = await self.roster.crew(spec.name, pool.name)
        ready = _ready(pool, crew)
        if ready == 0:
            raise EngineUnavailable(nobody_up(pool, crew.starting))
        return await self.room(spec, pool, ready) if tier is SlaTier.BRONZE else None


def _ready(pool: Pool, crew: Crew) -> int:
    """How many workers take calls: the runner of a fixed one sees its own, others have theirs."""
    up = len(crew.ready)
    return max(up, pool.fixed_workers) if pool.is_fixed else up
