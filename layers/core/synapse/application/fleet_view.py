"""The fleet as an operator looks at it: workers, pools, and why a request would go where."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from synapse.application.autoscale import PoolStanding
from synapse.application.checks import served_model
from synapse.application.fleet import Fleet
from synapse.domain.access import ANYONE
from synapse.domain.breaker import BreakerState
from synapse.domain.errors import Unavailable
from synapse.domain.latency import Quantiles
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool, PoolSize
from synapse.domain.routing import Decision, Need, PoolView
from synapse.domain.worker import Worker
from synapse.ports import Capacity, Registry


@dataclass(frozen=True, slots=True)
class WorkerView:
    """A worker, and what this process has seen of it: its breakers by model, its calls."""

    worker: Worker
    breakers: Mapping[str, BreakerState]
    outstanding: int


@dataclass(frozen=True, slots=True)
class ModelInPool:
    """A model in a pool: how it stands, and what calls took in the last minute (milliseconds)."""

    spec: ModelSpec
    view: PoolView
    breaker: BreakerState
    took_ms: Quantiles | None


@dataclass(frozen=True, slots=True)
class PoolReport:
    """A pool with its size, what the autoscaler decided of it, and its models.

    None where nobody here decides its size, or knows what was decided.
    """

    pool: Pool
    size: PoolSize | None
    standing: PoolStanding | None
    models: Sequence[ModelInPool]


@dataclass(frozen=True, slots=True)
class FleetView:
    """The use cases behind `/api/admin`.

    `capacity` is None where no pool can be sized; `decisions` are the autoscaler's, if it runs in
    this process.
    """

    fleet: Fleet
    registry: Registry
    capacity: Capacity | None = None
    decisions: Callable[[], Sequence[PoolStanding]] = tuple

    async def route(self, model: str, need: Need) -> tuple[ModelSpec, Need, Decision]:
        """Where such a request would go now, and why; nothing is sent.

        Raises:
            UnknownModel: it is not served here.
            Unavailable: what is to be known of the pools could not be read.
        """
        spec = await served_model(self.registry, model, ANYONE)
        if spec.task is Task.GENERATE:
            need = replace(need, first_token_only=True)
        return spec, need, await self.fleet.routing.decide(spec, need)

    async def workers(self) -> list[WorkerView]:
        """All workers that are alive, by pool and id.

        Raises:
            Unavailable: they could not be read.
        """
        return [self._worker(worker) for worker in await self.fleet.roster.workers()]

    async def pools(self) -> list[PoolReport]:
        """All pools that serve a model, by name.

        Raises:
            Unavailable: what is to be known of them could not be read.
        """
        pools: dict[str, Pool] = {}
        models: dict[str, list[ModelInPool]] = {}
        for spec in await self.registry.models():
            for view in await self.fleet.routing.views(spec):
                pools[view.pool.name] = view.pool
                models.setdefault(view.pool.name, []).append(self._model(spec, view))
        standings = {standing.pool.name: standing for standing in self.decisions()}
        return [
            PoolReport(
                pools[name], await self._size(pools[name]), standings.get(name), models[name]
            )
            for name in sorted(pools)
        ]

    def _worker(self, worker: Worker) -> WorkerView:
        vitals = self.fleet.vitals
        now = vitals.clock()
        breakers = {
            model.name: vitals.breaker(model.name, worker.pool, worker.id).state(now)
            for model in worker.models
        }
        return WorkerView(worker, breakers, vitals.outstanding[worker.pool, worker.id])

    def _model(self, spec: ModelSpec, view: PoolView) -> ModelInPool:
        vitals = self.fleet.vitals
        now, seen = vitals.clock(), vitals.pool(spec.name, view.pool.name)
        breaker = seen.breaker.state(now)
        if view.pool.is_fixed and breaker is BreakerState.CLOSED:
            breaker = vitals.breaker(spec.name, view.pool.name, "").state(now)
        return ModelInPool(spec, view, breaker, seen.took_ms.quantiles(now))

    async def _size(self, pool: Pool) -> PoolSize | None:
        if self.capacity is None or pool.is_fixed:
            return None
        try:
            return await self.capacity.size(pool)
        except Unavailable:
            return None
