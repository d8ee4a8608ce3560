"""Models that are asked for and that no worker has loaded: one that is up is asked to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from synapse.domain.job import SlaTier
from synapse.domain.load import ModelDemand, PoolLoad, TierDemand, spread_demand
from synapse.domain.pool import Pool
from synapse.domain.routing import PoolView
from synapse.domain.scaling import ScalingPolicy, need_of
from synapse.domain.turns import Claim, Resident, terms, turn_s
from synapse.domain.warm import most_wanted
from synapse.domain.worker import Worker, WorkerState
from synapse.ports import ModelLoader, StartTimes

TOLERANCE = ScalingPolicy().tolerance

CLEARING_S = 60.0
"""So long at the most a worker is for one model: twice what a load waits for those that make way.

If it has not come by then, what is in its way may never go: that must not hold up others.
"""

Views = Mapping[str, Sequence[PoolView]]


class _Reserved(NamedTuple):
    """A worker is for this model next: others make way for it there."""

    pool: str
    model: str
    yielding: Collection[str]
    since: float

    def holds(self, now: float) -> bool:
        """Whether it is yet; the clock may have been put back."""
        return 0 <= now - self.since < CLEARING_S


@dataclass(slots=True)
class OnDemand:
    """Sees to pools whose workers load models as they are asked for (`Pool.loads_on_demand`).

    What it remembers between rounds: since when models wait, since when workers have them, and
    for whom a worker is being cleared.
    """

    loader: ModelLoader
    starts: StartTimes
    _waiting_since: dict[tuple[str, str], float] = field(default_factory=dict)
    _there_since: dict[tuple[str, str], float] = field(default_factory=dict)
    _reserved: dict[str, _Reserved] = field(default_factory=dict)

    async def look(
        self, demands: Sequence[ModelDemand], views: Views, alive: Sequence[Worker], now: float
    ) -> None:
        """Ask for every model that work waits for and that nobody has who could do it.

        They take turns (`domain.turns`). Then, where nobody waits for that and as long as workers
        are up that lack it, for those whose work needs more of them, or that are to be warm:
        beside what others are asked for, not in its place. Where no worker is up at all, one has
        to be started first: that is the autoscaler's.
        """
        loadable = {
            model: of_model
            for model, of_model in views.items()
            if any(view.pool.loads_on_demand for view in of_model)
        }
        if not loadable:
            return
        up = [worker for worker in alive if _takes_models(worker)]
        residents = await self._residents(demands, views, up, now)
        claims = self._claims(demands, loadable, up, now)
        failing = self.loader.troubles()
        open_claims = {(pool.name, claim.model) for pool, claim in claims} - failing.keys()
        ids = {worker.id for worker in up}
        self._reserved = {
            worker: reserved
            for worker, reserved in self._reserved.items()
            if worker in ids and (reserved.pool, reserved.model) in open_claims
        }
        for pool, claim in claims:
            self._meet(pool, claim, up, residents, now)
        taken = {pool for pool, _ in open_claims}
        self._ask_for_more(demands, views, loadable, up, taken, now)

    def _meet(
        self,
        pool: Pool,
        claim: Claim,
        up: Sequence[Worker],
        residents: Mapping[str, Sequence[Resident]],
        now: float,
    ) -> None:
        """Ask one worker after the other until one begins."""
        for worker in _lacking(up, pool, claim.model):
            reserved = self._reserved.get(worker.id)
            is_mine = reserved is not None and reserved.model == claim.model
            if reserved is not None and not is_mine and reserved.holds(now):
                continue
            keep, yielding = terms(claim, residents[worker.id], now)
            if self.loader.ask(worker.id, pool, claim.model, keep, yielding):
                # Once for each wait: further tries must not hold it for ever.
                if yielding and not is_mine:
                    self._reserved[worker.id] = _Reserved(pool.name, claim.model, yielding, now)
                return

    def _ask_for_more(
        self,
        demands: Sequence[ModelDemand],
        views: Views,
        loadable: Views,
        up: Sequence[Worker],
        taken: Collection[str],
        now: float,
    ) -> None:
        """Ask for models that some have and more should, but in no pool where one has its claim."""
        asked = {each.model for each in demands if any(map(_is_asked, each.tiers.values()))}
        asked |= {model for model, of_model in views.items() if _is_warm(model, of_model, now)}
        count = Counter(worker.pool for worker in up)
        for model, of_model in loadable.items():
            mine = [each for each in demands if each.model == model]
            loads = spread_demand(mine, {model: of_model})
            for view in of_model:
                pool = view.pool
                if not pool.loads_on_demand or pool.name in taken:
                    continue
                wanted = max(_needed(loads[pool.name], view), _warm(model, pool, now))
                if view.ready >= min(count[pool.name], wanted):
                    continue
                for worker in _lacking(up, pool, model):
                    if self.loader.ask(worker.id, pool, model, keep=asked - {model}):
                        break

    async def _residents(
        self, demands: Sequence[ModelDemand], views: Views, up: Sequence[Worker], now: float
    ) -> dict[str, list[Resident]]:
        """What each worker has; noted is since when."""
        since: dict[tuple[str, str], float] = {}
        residents: dict[str, list[Resident]] = {worker.id: [] for worker in up}
        tiers = {model: _work_tier(model, demands, views[model]) for model in views}
        pools = {view.pool.name: view.pool for of_model in views.values() for view in of_model}
        for worker in up:
            pool = pools.get(worker.pool)
            if pool is None or not pool.loads_on_demand:
                continue
            for known in worker.models:
                if not worker.has(known.name):
                    continue
                # The clock may have been put back.
                at = min(now, self._there_since.get((worker.id, known.name), now))
                since[worker.id, known.name] = at
                load_s = await self.starts.startup_s(load_of(pool.name, known.name))
                turn = turn_s(pool.startup_s if load_s is None else load_s)
                tier = tiers.get(known.name)
                residents[worker.id].append(Resident(known.name, at, turn, tier))
        self._there_since = since
        return residents

    def _claims(
        self, demands: Sequence[ModelDemand], loadable: Views, up: Sequence[Worker], now: float
    ) -> list[tuple[Pool, Claim]]:
        """The models that somebody is to load, with the pool that is to have them; first due first.

        What was asked of one that makes way is answered yet: that is no reason to have it back.
        """
        pools_up = {worker.pool for worker in up}
        clearing = [each for each in self._reserved.values() if each.holds(now)]
        leaving = {model for each in clearing for model in each.yielding}
        since: dict[tuple[str, str], float] = {}
        claims: list[tuple[Pool, Claim]] = []
        for model, of_model in loadable.items():
            tier = _work_tier(model, demands, of_model)
            if tier is None or (model in leaving and not _is_queued(model, demands)):
                continue
            for able in _waited_for(model, demands, of_model):
                if any(view.ready for view in able):
                    continue
                pools = [view.pool for view in able if view.pool.name in pools_up]
                pool = next((pool for pool in pools if pool.loads_on_demand), None)
                if pool is None or (pool.name, model) in since:
                    continue
                at = min(now, self._waiting_since.get((pool.name, model), now))
                since[pool.name, model] = at
                claims.append((pool, Claim(model, tier, at)))
        self._waiting_since = since
        return sorted(claims, key=lambda each: each[1].due_at)


def _is_asked(demand: TierDemand) -> bool:
    return demand.queued > 0 or demand.arrivals_per_s > 0


def _is_queued(model: str, demands: Sequence[ModelDemand]) -> bool:
    mine = (each.tiers.values() for each in demands if each.model == model)
    return any(tier.queued for tiers in mine for tier in tiers)


def _work_tier(
    model: str, demands: Sequence[ModelDemand], views: Sequence[PoolView]
) -> SlaTier | None:
    """The best tier of what waits or is under way for a model; None if nothing is.

    Of what tier a caller on the line is nobody says: of one that was asked for lately.
    """
    is_under_way = any(view.in_flight for view in views)
    tiers = [
        tier
        for each in demands
        if each.model == model
        for tier, asked in each.tiers.items()
        if asked.queued or (is_under_way and asked.arrivals_per_s)
    ]
    none = SlaTier.BRONZE if is_under_way else None
    return min(tiers, key=lambda tier: tier.rank, default=none)


def _lacking(up: Sequence[Worker], pool: Pool, model: str) -> list[Worker]:
    """The workers of the pool that lack the model: first who has nothing to do, and few others."""
    lacking = [worker for worker in up if worker.pool == pool.name and not worker.has(model)]
    return sorted(lacking, key=lambda each: (_is_busy(each), _loaded(each)))


def _is_busy(worker: Worker) -> bool:
    return worker.state is WorkerState.INFERRING or worker.queue_length > 0


def _loaded(worker: Worker) -> int:
    return sum(worker.has(known.name) for known in worker.models)


def _needed(load: PoolLoad, view: PoolView) -> int:
    """Workers of the pool that the model's own load asks for."""
    return max(0, math.ceil(need_of(load, view.ready, view.pool.startup_s) - TOLERANCE))


def _is_warm(model: str, views: Sequence[PoolView], now: float) -> bool:
    return any(_warm(model, view.pool, now) for view in views)


def _warm(model: str, pool: Pool, now: float) -> int:
    """Workers that are to have the model at this time, work or no work."""
    return most_wanted([window for window in pool.warm if window.model == model], now)


def _waited_for(
    model: str, demands: Sequence[ModelDemand], views: Sequence[PoolView]
) -> Iterator[Sequence[PoolView]]:
    """For each kind of work that waits for the model, the pools that could do it.

    What callers on the line require is not known; as far as they are held, one by one, in a pool
    that has no worker for them, it is that pool that can.
    """
    for demand in demands:
        if demand.model == model and any(tier.queued for tier in demand.tiers.values()):
            yield [view for view in views if not view.pool.lacks(demand.requires)] or views
    held = [view for view in views if view.in_flight and not view.ready]
    if any(view.ready for view in views):
        yield from ([view] for view in held)
    elif held:
        yield views


def load_of(pool: str, model: str) -> str:
    """The name under which `StartTimes` keeps how long a load takes in a pool that is up."""
    return f"{pool}/{model}"


def _takes_models(worker: Worker) -> bool:
    return worker.state is not WorkerState.DEGRADED and not worker.is_starting()
