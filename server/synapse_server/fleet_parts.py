"""The pools of one machine with all that finds, calls, probes and scales their workers."""

from __future__ import annotations

import time
from collections.abc import Coroutine, Mapping
from typing import Any

from synapse.adapters.local.demand import LocalDemand, LocalStartTimes, LocalWaker
from synapse.adapters.local.queue import LocalJobQueue
from synapse.adapters.local.slots import SlotLedger
from synapse.adapters.telemetry.prometheus import PrometheusTelemetry
from synapse.adapters.triton.engine import TritonEngine
from synapse.application.autoscale import Autoscaler
from synapse.application.cold_start import ColdStarts
from synapse.application.fleet import Fleet
from synapse.application.health import FleetHealth
from synapse.application.on_demand import OnDemand
from synapse.application.ping import Pinger
from synapse.application.vitals import Vitals
from synapse.domain.scaling import ScalingPolicy
from synapse.ports import Registry
from synapse_server.ground import Ground
from synapse_server.housekeeping import every
from synapse_server.loop_delay import LoopDelay
from synapse_server.model_loader import LocalModelLoader
from synapse_server.mourner import Mourner
from synapse_server.records import Records
from synapse_server.scaling_loop import keep_scaled


class FleetParts:
    """Wired over the records and the workers; `chores` is what is to run once these are up."""

    def __init__(
        self,
        ground: Ground,
        records: Records,
        queue: LocalJobQueue,
        slots: SlotLedger,
        telemetry: PrometheusTelemetry,
    ) -> None:
        """Start nothing."""
        clock, registry = time.time, records.registry
        self._times = ground.config.fleet.times
        self.workers = ground.workers
        self.local = ground.fleet
        self._triton = TritonEngine()
        self.fleet = Fleet.over(
            self._triton,
            registry,
            self.workers,
            records.profiles,
            slots,
            clock,
            vitals=Vitals(time.monotonic, LoopDelay()),
        )
        self.local.when_cut(self._taken_away)
        demand, starts, self._waker = LocalDemand(queue, clock), LocalStartTimes(), LocalWaker()
        self._loader = LocalModelLoader(
            self.local.staying,
            demand.last_asked,
            starts,
            time.monotonic,
            round_s=self._times.scale_every_s,
        )
        self.cold_starts = ColdStarts(
            registry=registry,
            roster=self.fleet.roster,
            views=self.fleet.routing.views,
            arrivals=demand,
            waker=self._waker,
            starts=starts,
            telemetry=telemetry,
            clock=clock,
            failed_loads=self._loader,
        )
        self.autoscaler = self._autoscaler(registry, demand, starts, telemetry)
        self.health = FleetHealth(
            registry,
            self.workers,
            self.local,
            clock,
            self.local.troubles,
            self._loader.troubles,
            records.last_trouble,
        )
        self._pinger = Pinger(registry, self.workers, self.fleet.engine, queue, telemetry, clock)
        self._mourner = Mourner(self.workers, self.fleet, clock, self._times.lease_s)

    def _autoscaler(
        self,
        registry: Registry,
        demand: LocalDemand,
        starts: LocalStartTimes,
        telemetry: PrometheusTelemetry,
    ) -> Autoscaler:
        times = self._times
        return Autoscaler(
            registry=registry,
            workers=self.workers,
            capacity=self.local,
            source=demand,
            starts=starts,
            views=self.fleet.routing.views,
            telemetry=telemetry,
            clock=time.time,
            on_demand=OnDemand(self._loader, starts),
            policy=ScalingPolicy(stable_s=times.scale_in_after_s, cooldown_s=times.cooldown_s),
        )

    def _taken_away(self, worker_id: str) -> None:
        """What runs there is no loss: nothing is the matter with it, or with its worker."""
        self.fleet.engine.break_off(worker_id, "is taken away", is_lost=False)

    async def close(self) -> None:
        """End loads and calls that are under way."""
        await self._triton.aclose()
        await self._loader.close()

    def chores(self) -> Mapping[str, Coroutine[Any, Any, None]]:
        """What runs until it is cancelled, by name."""
        times = self._times
        return {
            "ping": every(times.ping_every_s, "ping", self._pinger.ping),
            "expire": every(times.beat_every_s / 2, "expire", self._mourner.bury),
            "scale": keep_scaled(self.autoscaler, self._waker, times.scale_every_s),
        }
