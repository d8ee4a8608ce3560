"""Models that are asked for and that no worker has loaded: one that is up is asked to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from synapse.domain.load import ModelDemand, PoolLoad, TierDemand, spread_demand
from synapse.domain.pool import Pool
from synapse.domain.routing import PoolView
from synapse.domain.scaling import ScalingPolicy, need_of
from synapse.domain.warm import most_wanted
from synapse.domain.worker import Worker, WorkerState
from synapse.ports import ModelLoader

TOLERANCE = ScalingPolicy().tolerance


@dataclass(frozen=True, slots=True)
class OnDemand:
    """Sees to pools whose workers load models as they are asked for (`Pool.loads_on_demand`)."""

    loader: ModelLoader

    def look(
        self,
        demands: Sequence[ModelDemand],
        views: Mapping[str, Sequence[PoolView]],
        alive: Sequence[Worker],
        now: float,
    ) -> None:
        """Ask for every model that work waits for and that nobody has who could do it.

        Then, as long as workers are up that lack it, for those whose work needs more of them, or
        that are to be warm: beside what others are asked for, not in its place. Where no worker
        is up at all, one has to be started first: that is the autoscaler's.
        """
        loadable = {
            model: of_model
            for model, of_model in views.items()
            if any(view.pool.loads_on_demand for view in of_model)
        }
        if not loadable:
            return
        up = Counter(worker.pool for worker in alive if _takes_models(worker))
        asked = {each.model for each in demands if any(map(_is_asked, each.tiers.values()))}
        asked |= {model for model, of_model in views.items() if _is_warm(model, of_model, now)}
        for model, of_model in loadable.items():
            for able in _waited_for(model, demands, of_model):
                if any(view.ready for view in able):
                    continue
                pools = [view.pool for view in able if up[view.pool.name]]
                pool = next((pool for pool in pools if pool.loads_on_demand), None)
                if pool is not None:
                    self.loader.ask(pool, model)
            mine = [each for each in demands if each.model == model]
            loads = spread_demand(mine, {model: of_model})
            for view in of_model:
                pool = view.pool
                wanted = max(_needed(loads[pool.name], view), _warm(model, pool, now))
                if pool.loads_on_demand and view.ready < min(up[pool.name], wanted):
                    self.loader.ask(pool, model, keep=asked - {model})


def _is_asked(demand: TierDemand) -> bool:
    return demand.queued > 0 or demand.arrivals_per_s > 0


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
