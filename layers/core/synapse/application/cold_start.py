"""Work that comes when no worker is up for it: it is taken, a worker is started, and it is told so.

Where workers are up this costs a request one look at the roster.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from synapse.application.on_demand import load_of
from synapse.application.roster import Roster
from synapse.domain.errors import Unavailable
from synapse.domain.extension import Extensions
from synapse.domain.job import Job, JobId, JobState
from synapse.domain.load import first_choice
from synapse.domain.loading import FailedLoad
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.domain.receipt import cold_ms
from synapse.domain.routing import Need, PoolView
from synapse.domain.worker import Worker
from synapse.ports import Arrivals, Clock, FailedLoads, Registry, StartTimes, Telemetry, Waker

logger = logging.getLogger(__name__)

LEAST_S = 1.0
"""What is left of a start that should be over already."""

MAX_TOLD = 100_000
"""Jobs remembered that were told of a cold start and have not ended."""


@dataclass(frozen=True, slots=True)
class ColdStart:
    """No worker is up: one of `pool` should be in `wait_s` seconds.

    While its loads fail (`failed`) nobody can tell when that is.
    """

    pool: str
    wait_s: float | None
    failed: FailedLoad | None = None


@dataclass(frozen=True, slots=True)
class ColdStarts:
    """Notes what arrives, and sees to it that a worker is started where there is none.

    `views` are the pools of a model as the router sees them (`Routing.views`). `failed_loads` are
    those of workers that load models on demand, where there are any.
    """

    registry: Registry
    roster: Roster
    views: Callable[[ModelSpec], Awaitable[Sequence[PoolView]]]
    arrivals: Arrivals
    waker: Waker
    starts: StartTimes
    telemetry: Telemetry
    clock: Clock
    failed_loads: FailedLoads | None = None
    _told: OrderedDict[JobId, None] = field(default_factory=OrderedDict)

    async def job_arrived(self, job: Job, spec: ModelSpec, need: Need) -> ColdStart | None:
        """The same as `arrived` of a job, which is remembered until it has ended."""
        cold = await self.arrived(spec, need)
        if cold is not None:
            self._told[job.id] = None
            if len(self._told) > MAX_TOLD:
                self._told.popitem(last=False)
        return cold

    async def arrived(self, spec: ModelSpec, need: Need) -> ColdStart | None:
        """Note work that waits by now; where no worker is up, have one started.

        Raises nothing; None also where it cannot be told.
        """
        cold = await self.comes(spec, need)
        if cold is not None:
            await self.wake(spec, need)
        return cold

    async def comes(self, spec: ModelSpec, need: Need) -> ColdStart | None:
        """Note a request that is not counted anywhere yet; `wake` once it is. Raises nothing."""
        self.arrivals.arrived(spec.name, need)
        return await self.of(spec, need)

    async def wake(self, spec: ModelSpec, need: Need) -> None:
        """Have a worker started for work that waits. Raises nothing."""
        await self.waker.wake(spec.name, need)

    async def of(self, spec: ModelSpec, need: Need) -> ColdStart | None:
        """What a request has to wait for a worker; None if one is up, or nobody can tell."""
        try:
            if await self._is_up(spec, need.requires):
                return None
            pools = await self._able(spec, need.requires)
            if failed := self._failed_in(pools, spec):
                return ColdStart(pools[0].name, None, failed)
            views = await self.views(spec)
            able = [view for view in views if not view.pool.lacks(need.requires)]
            return await self._start(spec, need, able or views)
        except Unavailable as error:
            logger.warning("workers not read: %s", error.message)
            return None

    async def failed(self, spec: ModelSpec, requires: Extensions) -> FailedLoad | None:
        """Why no worker that has what is required can load the model; None if one can, or has.

        Raises nothing; None also where it cannot be told.
        """
        if self.failed_loads is None:
            return None
        try:
            found = self._failed_in(await self._able(spec, requires), spec)
            return None if found is None or await self._is_up(spec, requires) else found
        except Unavailable as error:
            logger.warning("workers not read: %s", error.message)
            return None

    async def failed_of(self, job: Job) -> FailedLoad | None:
        """The same of what a waiting job needs."""
        if self.failed_loads is None or job.state is not JobState.QUEUED:
            return None
        spec = await self.registry.model(job.model)
        return None if spec is None else await self.failed(spec, job.requires)

    async def slots_up(self, spec: ModelSpec) -> int:
        """How many items of the model all workers that are up take at once; 0 if none is.

        Raises:
            Unavailable: the workers could not be read.
        """
        slots = 0
        for pool in await self.registry.pools(spec.name):
            crew = await self.roster.crew(spec.name, pool.name)
            up = pool.fixed_workers if pool.is_fixed else len(crew.ready)
            slots += up * pool.slots_of(spec)
        return slots

    async def of_job(self, job: Job) -> ColdStart | None:
        """What an open job has to wait for a worker; None if it need not."""
        spec = None if job.state.is_final else await self.registry.model(job.model)
        return None if spec is None else await self.of(spec, Need(job.sla, requires=job.requires))

    async def cold_ms(self, job: Job, spec: ModelSpec) -> float:
        """Of a running job's wait, how much passed until a worker was up. Raises nothing."""
        if job.started_at is None:
            return 0.0
        if job.id not in self._told and not await self._came_before_all_workers(job):
            return 0.0
        return cold_ms(job.created_at, job.started_at, await self.up_at(spec, job.requires))

    async def up_at(self, spec: ModelSpec, requires: Extensions) -> float | None:
        """Since when a worker that has what is required answers; None if none does.

        Raises nothing.
        """
        try:
            since = [
                self.roster.up_since(worker, pool.startup_s)
                for pool in await self._able(spec, requires)
                for worker in (await self.roster.crew(spec.name, pool.name)).ready
            ]
        except Unavailable as error:
            logger.warning("workers not read: %s", error.message)
            return None
        return min(since, default=None)

    async def job_ended(self, job: Job) -> None:
        """Tell how long a job took that came when no worker was up. Raises nothing.

        Where it came to another process, all workers have begun after it came. That leaves out
        those who came while the first one was starting.
        """
        was_told = job.id in self._told
        self._told.pop(job.id, None)
        if job.state is not JobState.COMPLETED or job.finished_at is None:
            return
        if was_told or await self._came_before_all_workers(job):
            pool = "" if job.served is None else job.served.pool
            self.telemetry.cold_started(job.model, pool, job.finished_at - job.created_at)

    async def _came_before_all_workers(self, job: Job) -> bool:
        spec = await self.registry.model(job.model)
        try:
            return spec is not None and not await self._is_up(
                spec, job.requires, since=job.created_at
            )
        except Unavailable as error:
            logger.warning("workers not read: %s", error.message)
            return False

    async def _is_up(
        self, spec: ModelSpec, requires: Extensions, since: float | None = None
    ) -> bool:
        """Whether a worker that has what is required answers, or has done so already at `since`."""
        for pool in await self._able(spec, requires):
            if pool.is_fixed:
                return True
            ready: Sequence[Worker] = (await self.roster.crew(spec.name, pool.name)).ready
            if any(since is None or worker.started_at <= since for worker in ready):
                return True
        return False

    async def _able(self, spec: ModelSpec, requires: Extensions) -> Sequence[Pool]:
        """The pools that have what is required; all where none has."""
        pools = await self.registry.pools(spec.name)
        return [pool for pool in pools if not pool.lacks(requires)] or pools

    def _failed_in(self, pools: Sequence[Pool], spec: ModelSpec) -> FailedLoad | None:
        """Why none of the pools can load it; final only where it is in all of them."""
        if self.failed_loads is None:
            return None
        found = [self.failed_loads.failed(pool.name, spec.name) for pool in pools]
        failed = [each for each in found if each is not None]
        if not failed or len(failed) < len(found):
            return None
        return min(failed, key=lambda each: (each.is_final, each.again_in_s))

    async def _start(
        self, spec: ModelSpec, need: Need, views: Sequence[PoolView]
    ) -> ColdStart | None:
        """The first that is on its way, or the one that will be started."""
        on_the_way = [
            (max(LEAST_S, await self._left_s(spec, view)), view.pool.name)
            for view in views
            if view.starting
        ]
        if on_the_way:
            wait_s, pool = min(on_the_way, key=lambda start: start[0])
            return ColdStart(pool, wait_s)
        view = first_choice(need, views)
        if view is None:
            return None
        return ColdStart(view.pool.name, await self._whole_s(spec, view))

    async def _whole_s(self, spec: ModelSpec, view: PoolView) -> float:
        if view.pool.loads_on_demand and await self._has_anybody(view.pool.name):
            load_s = await self.starts.startup_s(load_of(view.pool.name, spec.name))
            if load_s is not None:
                return load_s
        measured_s = await self.starts.startup_s(view.pool.name)
        return view.pool.startup_s if measured_s is None else measured_s

    async def _left_s(self, spec: ModelSpec, view: PoolView) -> float:
        crew = await self.roster.crew(spec.name, view.pool.name)
        return crew.began_at + await self._whole_s(spec, view) - self.clock()

    async def _has_anybody(self, pool: str) -> bool:
        return any(worker.pool == pool for worker in await self.roster.workers())
