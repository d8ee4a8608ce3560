"""The autoscaler: the one writer of how many workers each pool should have."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from synapse.application.on_demand import OnDemand
from synapse.domain.consolidation import consolidate_demand
from synapse.domain.errors import Unavailable
from synapse.domain.load import PoolLoad, lately_asked
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool, PoolSize
from synapse.domain.routing import PoolView
from synapse.domain.scaling import (
    Memory,
    PoolState,
    ScalingDecision,
    ScalingPolicy,
    decide,
    is_stuck,
    stuck_after_s,
)
from synapse.domain.warm import warm_workers
from synapse.domain.worker import Worker, WorkerState
from synapse.ports import (
    Capacity,
    Clock,
    DemandSource,
    Registry,
    StartTimes,
    Telemetry,
    WorkerRegistry,
)

logger = logging.getLogger(__name__)

Views = Callable[[ModelSpec], Awaitable[Sequence[PoolView]]]
"""The pools of a model as the router sees them (`Routing.views`)."""


HOLD_S = 300.0
"""So long a pool is held for who asked for that: it may take two minutes until he asks again."""


@dataclass(frozen=True, slots=True)
class PoolStanding:
    """A pool at the last round: its size then, what was decided, and when."""

    pool: Pool
    size: PoolSize
    warm: int
    load: PoolLoad
    decision: ScalingDecision
    decided_at: float


@dataclass(slots=True)
class Autoscaler:
    """Rounds over all pools whose workers are ours to start and stop.

    What it remembers between rounds is kept in memory: one that starts anew takes every pool for
    just used, and so takes nothing away too early.
    """

    registry: Registry
    workers: WorkerRegistry
    capacity: Capacity
    source: DemandSource
    starts: StartTimes
    views: Views
    telemetry: Telemetry
    clock: Clock
    policy: ScalingPolicy = field(default_factory=ScalingPolicy)
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    on_demand: OnDemand | None = None
    _memories: dict[str, Memory] = field(default_factory=dict)
    _standings: dict[str, PoolStanding] = field(default_factory=dict)
    _asked_at: dict[str, float] = field(default_factory=dict)
    _held_at: dict[str, float] = field(default_factory=dict)
    _stuck: Sequence[str] = ()

    def hold(self, pool: str) -> None:
        """Have a worker of the pool up for `HOLD_S` seconds, work or no work."""
        self._held_at[pool] = self.clock()

    async def run(self) -> Sequence[ScalingDecision]:
        """One round: read, decide, and ask for what was decided; the decisions, by pool.

        A pool that cannot be read or resized is left as it is, and seen to in the next round.

        Raises:
            Unavailable: the demand could not be read; nothing was changed.
        """
        now = self.clock()
        views: dict[str, Sequence[PoolView]] = {}
        for spec in await self.registry.models():
            views[spec.name] = await self.views(spec)
        demands = lately_asked(await self.source.demand(now), views, now)
        alive = await self.workers.workers(now)
        pools = {view.pool.name: view.pool for of_model in views.values() for view in of_model}
        stuck = [name for name, pool in pools.items() if await self._is_stuck(pool, now)]
        self._stuck = sorted(stuck)
        loads = consolidate_demand(demands, views, stuck)
        if self.on_demand is not None:
            await self.on_demand.look(demands, views, alive, now)
        decisions = []
        for name, pool in sorted(pools.items()):
            if pool.is_fixed:
                continue
            mine = [worker for worker in alive if worker.pool == name]
            decision = await self._round(pool, loads[name], mine, now)
            decisions.extend([decision] if decision else [])
        return decisions

    async def settle(self, for_s: float, every_s: float) -> Sequence[ScalingDecision]:
        """Rounds until nothing waits and all wanted workers are up; at least one, then for `for_s`.

        For who is not called each second: a start is seen when it is over, and more can be asked
        for meanwhile. Returns the decisions that changed something.

        Raises:
            Unavailable: see `run`.
        """
        until, changes = self.clock() + for_s, list[ScalingDecision]()
        while True:
            changes += [decision for decision in await self.run() if decision.is_change]
            if self.is_settled() or self.clock() + every_s > until:
                return changes
            await self.sleep(every_s)

    def is_settled(self) -> bool:
        """Whether, at the last round, nothing waited and every worker wanted was up."""
        return all(
            standing.load.waiting == 0 and standing.decision.desired <= standing.size.ready
            for standing in self._standings.values()
        )

    def stuck(self) -> Sequence[str]:
        """The pools that have brought no worker up, for all that was tried, and still have none."""
        return [name for name in self._stuck if self._standings[name].size.ready == 0]

    def decisions(self) -> Sequence[PoolStanding]:
        """Each pool at the last round that could read it, by name."""
        return [self._standings[name] for name in sorted(self._standings)]

    async def _round(
        self, pool: Pool, load: PoolLoad, alive: Sequence[Worker], now: float
    ) -> ScalingDecision | None:
        memory = self._memories.get(pool.name) or Memory.fresh(now)
        try:
            size = await self.capacity.size(pool)
            state = await self._state(pool, size, load, alive, now)
            decision, memory = decide(state, memory, now, self.policy)
            if decision.is_change:
                await self.capacity.resize(pool, decision.desired)
        except Unavailable as error:
            logger.warning("pool %s was not scaled: %s", pool.name, error.message)
            return None
        self._memories[pool.name] = memory
        self._standings[pool.name] = PoolStanding(
            pool, size, state.warm, load, decision, decided_at=now
        )
        await self._note(state, decision, size, now)
        return decision

    async def _is_stuck(self, pool: Pool, now: float) -> bool:
        memory = self._memories.get(pool.name)
        if memory is None:
            return False
        return is_stuck(memory, await self._startup_s(pool), now, self.policy)

    async def _startup_s(self, pool: Pool) -> float:
        measured_s = await self.starts.startup_s(pool.name)
        return pool.startup_s if measured_s is None else measured_s

    async def _state(
        self, pool: Pool, size: PoolSize, load: PoolLoad, alive: Sequence[Worker], now: float
    ) -> PoolState:
        loading = sum(
            worker.state in (WorkerState.DOWNLOADING, WorkerState.LOADING) for worker in alive
        )
        return PoolState(
            pool=pool,
            desired=size.desired,
            ready=size.ready,
            starting=max(size.starting, loading),
            warm=max(warm_workers(pool, now), self._held(pool, now)),
            load=load,
            startup_s=await self._startup_s(pool),
        )

    def _held(self, pool: Pool, now: float) -> int:
        held_at = self._held_at.get(pool.name)
        return int(held_at is not None and 0 <= now - held_at < HOLD_S)

    async def _note(
        self, state: PoolState, decision: ScalingDecision, size: PoolSize, now: float
    ) -> None:
        name = decision.pool
        self.telemetry.pool_sized(name, decision.desired, size.ready, state.starting)
        if decision.is_change:
            logger.info(
                "pool %s: %d workers instead of %d: %s",
                name,
                decision.desired,
                decision.was,
                decision.reason,
            )
            self.telemetry.scaled(decision)
        if size.ready == 0 and decision.desired > 0:
            if decision.was == 0:
                self._asked_at[name] = now
            return
        asked_at = self._asked_at.pop(name, None)
        if asked_at is not None and size.ready > 0 and now > asked_at:
            # What is waited for beyond that is capacity: no later start need take so long.
            most_s = stuck_after_s(state.startup_s, self.policy)
            await self.starts.started(name, min(now - asked_at, most_s))
