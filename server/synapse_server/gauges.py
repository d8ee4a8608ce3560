"""What `/metrics` shows of the moment, beside what telemetry has counted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from synapse.adapters.local.queue import LocalJobQueue
from synapse.adapters.local.slots import SlotLedger
from synapse.adapters.telemetry.exposition import exposition, fleet_exposition
from synapse.adapters.telemetry.prometheus import PrometheusTelemetry
from synapse.application.health import Health
from synapse.application.under_way import load_of
from synapse.application.vitals import Vitals
from synapse.domain.job import Priority
from synapse.domain.pool import Pool
from synapse.ports import Clock, Registry, WorkerRegistry


@dataclass(frozen=True, slots=True)
class Gauges:
    """Renders the whole page; `health` is what `/health` says."""

    registry: Registry
    pools: Sequence[Pool]
    workers: WorkerRegistry
    vitals: Vitals
    queue: LocalJobQueue
    slots: SlotLedger
    telemetry: PrometheusTelemetry
    clock: Clock
    health: Callable[[], Awaitable[Health]]

    async def text(self) -> str:
        """Prometheus' exposition."""
        specs = await self.registry.models()
        depth = dict.fromkeys(Priority, 0)
        for spec in specs:
            for priority, waiting in (await self.queue.depth(spec.name)).items():
                depth[priority] += waiting
        alive = await self.workers.workers(self.clock())
        loads = {
            spec.name: await load_of(spec, await self.registry.pools(spec.name), self.slots, alive)
            for spec in specs
        }
        return "".join(
            (
                self.telemetry.render(),
                exposition((await self.health()).workers, depth, loads),
                fleet_exposition(self.pools, alive, self.vitals.unwell()),
            )
        )
