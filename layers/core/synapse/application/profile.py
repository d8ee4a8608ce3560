"""The profiler: measures what is served where, and keeps what the router goes by.

In steps that may run in one process (`run`) or one function call each (AWS): which (model, pool)
lack a profile, one measurement, and the profile of them all.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from synapse.application.measure import measure
from synapse.domain.errors import SynapseError
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.profile import Profile
from synapse.domain.profile_fit import fit
from synapse.domain.profiling import Measurement, ProfilingError, limit_s, next_cell, plan_for
from synapse.ports import Clock, ProfileStore, Registry, StreamingEngine

BUDGET_S = 60.0
"""For a (model, pool); what is stable sooner is done sooner."""

Place = Callable[[ModelSpec, Pool], Awaitable[Pool]]
"""The pool with the worker that is to be measured; raises EngineUnavailable if there is none."""

Busy = Callable[[Pool], Awaitable[int]]
"""How many items of other people the pool has under way."""


@dataclass(frozen=True, slots=True)
class Target:
    """A model on a pool; `known` is the profile of its present version, None if it lacks one."""

    spec: ModelSpec
    pool: Pool
    known: Profile | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """A measurement that has just ended, the how-manieth of its target."""

    target: Target
    measured: Measurement
    number: int


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a target: its new profile, or why there is none."""

    target: Target
    profile: Profile | None
    problem: str = ""


OnProgress = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Profiler:
    """Measures workers and writes profiles; one measurement takes `most_s` at most."""

    registry: Registry
    engine: StreamingEngine
    store: ProfileStore
    place: Place
    busy: Busy
    clock: Clock
    most_s: float = math.inf

    async def targets(self, model: str = "", pool: str = "") -> Sequence[Target]:
        """What may be profiled: all, or only a model's, or a pool's.

        Raises:
            ProfilingError: there is no such model, or no such pool.
            Unavailable: the profiles cannot be read.
        """
        specs = [spec for spec in await self.registry.models() if model in ("", spec.name)]
        known = {
            (each.model, each.version, each.pool): each for each in await self.store.profiles()
        }
        found = [
            Target(spec, each, known.get((spec.name, spec.version, each.name)))
            for spec in specs
            for each in await self.registry.pools(spec.name)
            if pool in ("", each.name)
        ]
        if not found:
            what = " and ".join(
                filter(None, (model and f"model {model!r}", pool and f"pool {pool!r}"))
            )
            there = await self._served()
            raise ProfilingError(f"nothing is served of {what or 'any model'}; there are: {there}")
        return found

    async def _served(self) -> str:
        pairs = [
            f"{spec.name} on {pool.name}"
            for spec in await self.registry.models()
            for pool in await self.registry.pools(spec.name)
        ]
        return ", ".join(pairs) or "none"

    async def target(self, model: str, version: str, pool: str) -> Target:
        """The one of these names; `version` is that for which a profile is being made.

        Raises:
            ProfilingError: it is not served, or another version is by now.
        """
        [found] = await self.targets(model, pool)
        if found.spec.version != version:
            raise ProfilingError(f"model {model!r} is served in version {found.spec.version} now")
        return found

    async def measure_next(
        self, target: Target, done: Sequence[Measurement], budget_s: float = BUDGET_S
    ) -> Measurement | None:
        """The next measurement; None if there are enough.

        Raises:
            EngineUnavailable: there is no worker.
        """
        spec, plan = target.spec, plan_for(target.spec, target.pool)
        cell = next_cell(plan, done, budget_s)
        if cell is None:
            return None
        placed = await self.place(spec, target.pool)
        was_busy = await self.busy(target.pool)
        limit = limit_s(plan, done, budget_s)
        measured = await measure(self.engine, spec, placed, cell, limit, self.most_s)
        # Who came and went in between is not seen, and shows as spread.
        is_busy = was_busy + await self.busy(target.pool) > 0
        return replace(measured, was_idle=not is_busy)

    async def keep(self, target: Target, done: Sequence[Measurement]) -> Profile:
        """Make a profile of the measurements and write it down.

        Raises:
            ProfilingError: they do not even tell how long an item alone takes.
            Unavailable: it could not be written.
        """
        plan = plan_for(target.spec, target.pool)
        profile = fit(target.spec, target.pool, plan, done, self.clock())
        await self.store.keep(profile)
        return profile

    async def run(
        self,
        targets: Sequence[Target],
        budget_s: float = BUDGET_S,
        on_progress: OnProgress = lambda progress: None,
    ) -> AsyncGenerator[Report, None]:
        """Profile one after the other, as they may share a machine; problems are reported."""
        for target in targets:
            try:
                profile = await self._profile(target, budget_s, on_progress)
            except (SynapseError, ProfilingError) as error:
                yield Report(target, None, str(error))
            else:
                yield Report(target, profile)

    async def _profile(self, target: Target, budget_s: float, on_progress: OnProgress) -> Profile:
        done: list[Measurement] = []
        while (measured := await self.measure_next(target, done, budget_s)) is not None:
            done.append(measured)
            on_progress(Progress(target, measured, len(done)))
        return await self.keep(target, done)
