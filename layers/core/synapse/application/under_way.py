"""What is under way of a model, over all its pools."""

from __future__ import annotations

from collections.abc import Sequence

from synapse.domain.admission import Load
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.worker import Worker
from synapse.ports import InFlight


async def load_of(
    spec: ModelSpec, pools: Sequence[Pool], in_flight: InFlight, alive: Sequence[Worker]
) -> Load:
    """Items that workers work on and items that wait for a slot, by the workers that are up.

    Raises:
        Unavailable: what is in flight could not be counted.
    """
    running = waiting = 0
    for pool in pools:
        ready = sum(worker.pool == pool.name and worker.has(spec.name) for worker in alive)
        slots = (pool.fixed_workers if pool.is_fixed else ready) * pool.slots_of(spec)
        load = Load.of(await in_flight.count(spec.name, pool.name), slots)
        running, waiting = running + load.running, waiting + load.waiting
    return Load(running, waiting)
