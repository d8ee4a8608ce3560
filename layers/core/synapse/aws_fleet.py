"""Wiring of the AWS target, as far as workers go: the fleet, its runners, its size.

It loads nothing of the API: runners are in workers' containers too, which have no packages for it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator, Mapping
from functools import cache, cached_property
from typing import Any

from synapse.adapters.aws.demand import NoArrivals
from synapse.adapters.probe_events import probe_from_event, stay_awake
from synapse.adapters.telemetry.emf import EmfTelemetry
from synapse.application.accounting import Accounting
from synapse.application.autoscale import Autoscaler
from synapse.application.cold_start import ColdStarts
from synapse.application.entrance import Entrance
from synapse.application.fleet import Fleet
from synapse.application.health import note_stuck
from synapse.application.lease_watch import lease_watch
from synapse.application.metering import Metering
from synapse.application.ping import Pinger
from synapse.application.revocations import Revocations
from synapse.application.run_batch import BatchRunner
from synapse.application.waiting import WaitingPlaces
from synapse.aws_parts import Parts
from synapse.domain.batching import Batch
from synapse.domain.pool import Pool
from synapse.settings import Settings

WORKERS_FRESH_S = 2.0
"""How old what is known of the workers may be: reading it costs a call."""

REVOCATIONS_FRESH_S = 30.0
"""And what is known of a key: so long jobs are begun yet for one that was revoked with them."""


@cache
def fleet_target() -> FleetTarget:
    """The pools and workers of this environment."""
    return FleetTarget(Settings.load(os.environ))


class FleetTarget:
    """The use cases that know of pools and workers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.telemetry = EmfTelemetry(settings.service)
        self.parts = Parts(settings)

    @contextlib.contextmanager
    def telemetry_flushed(self) -> Iterator[None]:
        """Write the collected metrics at the end of an invocation, however it ends."""
        try:
            yield
        finally:
            self.telemetry.flush()

    def pool(self, name: str) -> Pool:
        """The pool of that name.

        Raises:
            ValueError: there is none.
        """
        for pool in self.settings.pools:
            if pool.name == name:
                return pool
        raise ValueError(f"pool {name!r} is not in SYNAPSE_POOLS")

    @cached_property
    def fleet(self) -> Fleet:
        """Which pool, which worker of it, and the call itself."""
        parts = self.parts
        return Fleet.over(
            parts.engine,
            parts.registry,
            parts.workers,
            parts.profiles,
            parts.in_flight,
            time.time,
            fresh_s=WORKERS_FRESH_S,
        )

    async def run_batch(self, batch: Batch, pool: str, lease_s: float) -> None:
        """Run a batch on the pool of that name; raises as `BatchRunner.run` does."""
        chosen, runner = self.pool(pool), self.runner(lease_s)
        if chosen.is_fixed:
            await runner.run(batch, chosen)
            return
        async with lease_watch(self.parts.workers, self.fleet, time.time):
            await runner.run(batch, chosen)

    @cached_property
    def metering(self) -> Metering:
        """Counts what callers with limits use."""
        return Metering(self.parts.meter, self.fleet.routing.views, time.time)

    def runner(self, lease_s: float) -> BatchRunner:
        """A runner whose leases last `lease_s` seconds."""
        parts = self.parts
        return BatchRunner(
            parts.jobs,
            parts.blobs,
            parts.registry,
            self.fleet.engine,
            self.telemetry,
            time.time,
            lease_s,
            place=self.fleet.placement.place,
            entrance=self._entrance,
            cold_starts=self.cold_starts,
            accounting=self.accounting,
            revocations=self.revocations,
        )

    @cached_property
    def _entrance(self) -> Entrance:
        return Entrance(self.fleet.windows, self.parts.in_flight, self.places, time.time)

    @cached_property
    def places(self) -> WaitingPlaces:
        """Where batches wait at their runners."""
        parts = self.parts
        return WaitingPlaces(self.fleet.windows, parts.in_flight, parts.registry, time.time)

    @cached_property
    def revocations(self) -> Revocations:
        """Which keys were revoked with all that was begun with them."""
        return Revocations(self.parts.keys, time.time, fresh_s=REVOCATIONS_FRESH_S)

    async def probe(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """What a runner answers that is not given a batch (`adapters.probe_events`)."""
        probe = probe_from_event(event)
        if probe is None:
            return await stay_awake()
        spec = await self.parts.registry.model(probe.model)
        if spec is None:
            raise ValueError(f"model {probe.model!r} is not in the catalogue")
        return await probe.run(self.parts.engine, spec, self.pool(probe.pool))

    @cached_property
    def accounting(self) -> Accounting:
        """What requests cost, and whose usage they are."""
        parts = self.parts
        return Accounting(self.fleet.roster, parts.idle, parts.usage, time.time)

    @cached_property
    def cold_starts(self) -> ColdStarts:
        """What comes when no worker is up."""
        parts = self.parts
        return ColdStarts(
            parts.registry,
            self.fleet.roster,
            self.fleet.routing.views,
            NoArrivals(),
            parts.waker,
            parts.start_times,
            self.telemetry,
            time.time,
        )

    @cached_property
    def autoscaler(self) -> Autoscaler:
        """The one writer of how many workers there are."""
        parts = self.parts
        return Autoscaler(
            parts.registry,
            parts.workers,
            parts.capacity,
            parts.demand,
            parts.start_times,
            self.fleet.routing.views,
            self.telemetry,
            time.time,
        )

    async def note_stuck(self, pools: Collection[str]) -> None:
        """Have `/health` tell that these pools bring no worker up.

        Raises:
            Unavailable: it could not be read or written.
        """
        await note_stuck(self.parts.registry, self.parts.workers, pools, time.time)

    @cached_property
    def pinger(self) -> Pinger:
        """Keeps workers warm."""
        parts = self.parts
        return Pinger(
            parts.registry,
            parts.workers,
            parts.probes,
            parts.queue,
            self.telemetry,
            time.time,
            parts.environments,
        )
