"""Models that are asked for and that no worker has loaded: one that is up is asked to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from synapse.domain.load import ModelDemand
from synapse.domain.routing import PoolView
from synapse.domain.worker import Worker, WorkerState
from synapse.ports import ModelLoader


@dataclass(frozen=True, slots=True)
class OnDemand:
    """Sees to pools whose workers load models as they are asked for (`Pool.loads_on_demand`)."""

    loader: ModelLoader

    def look(
        self,
        demands: Sequence[ModelDemand],
        views: Mapping[str, Sequence[PoolView]],
        alive: Sequence[Worker],
    ) -> None:
        """Ask for every model that work waits for and that nobody has who could do it.

        Where no worker is up at all, one has to be started first: that is the autoscaler's.
        """
        up = {worker.pool for worker in alive if _takes_models(worker)}
        for model, of_model in views.items():
            for able in _waited_for(model, demands, of_model):
                if any(view.ready for view in able):
                    continue
                pools = [view.pool for view in able if view.pool.name in up]
                pool = next((pool for pool in pools if pool.loads_on_demand), None)
                if pool is not None:
                    self.loader.ask(pool, model)


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
