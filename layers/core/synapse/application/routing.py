"""Which pool a request goes to, as things stand."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from synapse.application.intake import BYTES_PER_TOKEN
from synapse.application.placement import DOUBTFUL, ON_TRIAL, WELL, rank_of
from synapse.application.roster import Roster
from synapse.application.vitals import Vitals
from synapse.domain.affinity import prefix_affinity
from synapse.domain.inference import ModelInput
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool
from synapse.domain.routing import Decision, Need, PoolView, route
from synapse.domain.warm import warm_workers
from synapse.domain.window import Opening
from synapse.ports import Clock, InFlight, ProfileStore, Registry

TYPICAL_OUTPUT_TOKENS = 256
"""Of an answer whose length was not asked for."""

PREFIX_TOKENS = 256
"""What of a prompt's beginning makes its affinity, where it is given as tokens."""

Decide = Callable[[ModelSpec, Need], Coroutine[Any, Any, Decision]]
"""Which pools a need is to be tried in. Raises Unavailable if it cannot be found out."""

See = Callable[[ModelSpec, Pool, int], Awaitable[Opening]]
"""What bronze finds in a pool with so many workers. Raises Unavailable if it cannot be told."""


@dataclass(frozen=True, slots=True)
class Routing:
    """Looks at every pool of a model and has the domain choose (`domain.routing`).

    `see` tells what bronze finds in a pool that is up: how much room better tiers leave there, and
    what is in flight.
    """

    registry: Registry
    roster: Roster
    profiles: ProfileStore
    in_flight: InFlight
    vitals: Vitals
    clock: Clock
    see: See

    async def decide(self, spec: ModelSpec, need: Need) -> Decision:
        """The model's pools in the order in which they are to be tried; none if it has none.

        Raises:
            Unavailable: what is to be known of the pools could not be read.
        """
        return self._decided(spec, need, await self.views(spec, need.tier))

    def at_once(self) -> Decide:
        """As `decide`, for needs of one moment: pools are looked at once for a model and tier."""
        seen: dict[tuple[str, SlaTier], list[PoolView]] = {}

        async def decide(spec: ModelSpec, need: Need) -> Decision:
            key = spec.name, need.tier
            if key not in seen:
                seen[key] = await self.views(spec, need.tier)
            return self._decided(spec, need, seen[key])

        return decide

    def _decided(self, spec: ModelSpec, need: Need, views: list[PoolView]) -> Decision:
        decision = route(need, views)
        if decision.pools and decision.of(decision.pools[0].name).usd_per_item != 0:
            self.vitals.buys(spec.name, decision.pools[0].name)
        return decision

    async def views(self, spec: ModelSpec, tier: SlaTier = SlaTier.SILVER) -> list[PoolView]:
        """The model's pools as they stand, in the registry's order.

        Raises:
            Unavailable: what is to be known of them could not be read.
        """
        pools = await self.registry.pools(spec.name)
        return [await self._view(spec, pool, tier) for pool in pools]

    async def _view(self, spec: ModelSpec, pool: Pool, tier: SlaTier) -> PoolView:
        now, tick = self.clock(), self.vitals.clock()
        profile = await self.profiles.profile(spec.name, spec.version, pool.name)
        rate = await self.registry.service_rate(spec.name, now, pool.name)
        vitals = self.vitals.pool(spec.name, pool.name)
        vitals.measure_by(profile)
        ready, starting, starts_in_s, ids = pool.fixed_workers, 0, None, [""]
        if not pool.is_fixed:
            crew = await self.roster.crew(spec.name, pool.name)
            ready, starting = len(crew.ready), crew.starting
            starts_in_s = crew.starts_in_s(pool, now)
            ids = [worker.id for worker in crew.ready]
        rank = self._best_rank(spec, pool, ids, tick)
        lets_through = vitals.breaker.lets_through(tick)
        room = None
        if tier is SlaTier.BRONZE and ready:
            opening = await self.see(spec, pool, ready)
            room, in_flight = opening.room, opening.in_flight
        else:
            in_flight = await self.in_flight.count(spec.name, pool.name)
        return PoolView(
            pool,
            pool.slots_of(spec),
            ready,
            starting,
            starts_in_s,
            kept=max(pool.min_workers, warm_workers(pool, now)) if pool.warm else pool.min_workers,
            in_flight=in_flight,
            profile=profile,
            seconds_per_item=rate.of_items(spec.task).seconds_per_item,
            live=vitals.live(tick),
            is_open=not lets_through or (bool(ids) and rank not in (WELL, ON_TRIAL)),
            is_doubtful=lets_through and rank == DOUBTFUL,
            room=room,
            is_spare=self.vitals.is_spare(spec.name, pool.name, ids),
        )

    def _best_rank(
        self, spec: ModelSpec, pool: Pool, workers: Iterable[str], tick: float
    ) -> int | None:
        breakers = [self.vitals.breaker(spec.name, pool.name, worker) for worker in workers]
        ranks = [rank_of(breaker, tick) for breaker in breakers]
        return min([rank for rank in ranks if rank is not None], default=None)


def need_of(
    spec: ModelSpec,
    value: ModelInput,
    tier: SlaTier,
    deadline_s: float | None = None,
    affinity: str = "",
) -> Need:
    """What an input needs of a pool, its size estimated.

    Generations that name no `affinity` have that of how they begin.
    """
    generates = spec.task is Task.GENERATE
    return Need(
        tier,
        items=value.samples,
        prompt_tokens=min(spec.context_tokens, value.size_bytes // BYTES_PER_TOKEN + 1),
        output_tokens=output_tokens(spec, value) if generates else 0,
        deadline_s=deadline_s,
        first_token_only=generates,
        affinity=affinity or affinity_of(spec, value),
        requires=value.requires,
    )


def output_tokens(spec: ModelSpec, value: ModelInput) -> int:
    """What a generation is likely to write."""
    asked = value.parameters.get("max_tokens")
    return asked if isinstance(asked, int) else min(spec.max_output_tokens, TYPICAL_OUTPUT_TOKENS)


def affinity_of(spec: ModelSpec, value: ModelInput) -> str:
    """What a generation begins with, as far as a prefix cache would know it; else nothing."""
    if spec.task is not Task.GENERATE:
        return ""
    if value.messages:
        return prefix_affinity(value.messages[0].content)
    prompt = value.prompt
    if isinstance(prompt, tuple):
        return prefix_affinity(" ".join(map(str, prompt[:PREFIX_TOKENS])))
    return prefix_affinity(prompt or "")
