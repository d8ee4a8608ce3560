"""A deployment whose pools may be at zero."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from synapse.adapters.local.demand import LocalDemand, LocalStartTimes
from synapse.adapters.local.queue import LocalJobQueue
from synapse.application.cold_start import ColdStarts
from synapse.application.direct import DirectLane
from synapse.application.intake import SubmitJob
from synapse.application.results import Results
from synapse.application.roster import Roster
from synapse.application.submit import Accepted, Submitter
from synapse.application.sweep import Sweeper
from synapse.domain.inference import ModelInput
from synapse.domain.job import SlaTier
from synapse.domain.loading import FailedLoad
from synapse.domain.pool import Pool
from synapse.domain.routing import Need
from tests.factories import a_model, a_pool
from tests.fakes import MemoryRegistry
from tests.unit.application.world import World

ECHO = a_model()
GOLD = Need(SlaTier.GOLD)


class RecordingWaker:
    """Keeps for which models it was asked to wake the autoscaler."""

    def __init__(self) -> None:
        self.woken: list[str] = []

    async def wake(self, model: str, need: Need) -> None:
        self.woken.append(model)


def a_fleet_pool(name: str = "cpu", **changes: Any) -> Pool:
    """A pool at zero whose workers take 20 s to start."""
    fields: dict[str, Any] = {"endpoint": "", "min_workers": 0, "max_workers": 4, "startup_s": 20.0}
    return a_pool(name, **{**fields, **changes})


class KnownFailures:
    """Loads that were tried in vain, by pool."""

    def __init__(self) -> None:
        self.of: dict[str, FailedLoad] = {}

    def failed(self, pool: str, model: str) -> FailedLoad | None:
        assert model == ECHO.name
        return self.of.get(pool)


class ColdWorld(World):
    """A deployment of one model whose pools may be at zero."""

    def __init__(self, *pools: Pool, **changes: Any) -> None:
        super().__init__(registry=MemoryRegistry([ECHO], pools or [a_fleet_pool()]), **changes)
        self.waker = RecordingWaker()
        self.starts = LocalStartTimes()
        self.arrivals = LocalDemand(LocalJobQueue(), self.clock)
        self.roster = Roster(self.workers, self.clock, fresh_s=0.0)
        routing = replace(self.fleet.routing, roster=self.roster)
        self.failures = KnownFailures()
        self.forgotten: list[str] = []
        self.cold_starts = ColdStarts(
            self.registry,
            self.roster,
            routing.views,
            self.arrivals,
            self.waker,
            self.starts,
            self.telemetry,
            self.clock,
            self.failures,
        )
        self.runner.cold_starts = self.cold_starts

    @property
    def submitter(self) -> Submitter:
        return replace(super().submitter, cold_starts=self.cold_starts)

    @property
    def results(self) -> Results:
        forget = self.forgotten.append
        return replace(super().results, cold_starts=self.cold_starts, forget=forget)

    @property
    def sweeper(self) -> Sweeper:
        forget = self.forgotten.append
        return replace(super().sweeper, cold_starts=self.cold_starts, forget=forget)

    @property
    def direct(self) -> DirectLane:
        return replace(super().direct, cold_starts=self.cold_starts)

    async def accepted(self) -> Accepted:
        """A job is submitted."""
        return await self.submitter.submit(SubmitJob("echo", ModelInput(prompt="hello")))

    async def arrived(self) -> float:
        """How many gold arrivals a second were counted."""
        demands = await self.arrivals.demand(self.clock())
        return sum(demand.tiers[SlaTier.GOLD].arrivals_per_s for demand in demands)
