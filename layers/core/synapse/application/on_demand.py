"""Models that are asked for and that no worker has loaded: one that is up is asked to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        """Ask for every model that work waits for and that nobody has.

        Where no worker is up at all, one has to be started first: that is the autoscaler's.
        """
        queued = {each.model: sum(t.queued for t in each.tiers.values()) for each in demands}
        up = {worker.pool for worker in alive if _takes_models(worker)}
        for model, of_model in views.items():
            waiting = queued.get(model, 0) + sum(view.in_flight for view in of_model)
            if waiting == 0 or any(view.ready for view in of_model):
                continue
            pools = [view.pool for view in of_model if view.pool.name in up]
            able = next((pool for pool in pools if pool.loads_on_demand), None)
            if able is not None:
                self.loader.ask(able, model)


def load_of(pool: str, model: str) -> str:
    """The name under which `StartTimes` keeps how long a load takes in a pool that is up."""
    return f"{pool}/{model}"


def _takes_models(worker: Worker) -> bool:
    return worker.state is not WorkerState.DEGRADED and not worker.is_starting()
