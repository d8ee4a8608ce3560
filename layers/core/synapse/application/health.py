"""How the service is: what the pinger saw, and which pools are not up that should be."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from synapse.domain.model import WorkerHealth
from synapse.domain.pool import Pool
from synapse.domain.worker import Worker, WorkerState
from synapse.ports import Capacity, Clock, Registry, WorkerRegistry

LATELY_S = 300.0
"""How long what was seen holds: on AWS the pinger and the autoscaler come each minute."""

STUCK = "no worker of the pool comes up: see its service's events and its workers' log"


class Status(StrEnum):
    """The service in one word."""

    OK = "ok"
    """All that should be up is; a pool of which nothing is asked may be at zero."""
    STARTING = "starting"
    DEGRADED = "degraded"


@dataclass(frozen=True, slots=True)
class Health:
    """The service as it is, and the (model, pool)s that were looked at.

    `detail` says what is the matter beside them, empty if nothing is.
    """

    status: Status
    workers: Sequence[WorkerHealth]
    detail: str = ""


def _no_troubles() -> Mapping[str, str]:
    return {}


def _no_failed_loads() -> Mapping[tuple[str, str], str]:
    return {}


def _no_trouble() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class FleetHealth:
    """Looks at every model in every pool.

    `troubles` says why a pool's last worker failed, `failed_loads`, by pool and model, why a
    worker that is up could not load a model on demand. `trouble` is what is the matter with the
    records, empty if nothing is.
    """

    registry: Registry
    workers: WorkerRegistry
    capacity: Capacity
    clock: Clock
    troubles: Callable[[], Mapping[str, str]] = _no_troubles
    failed_loads: Callable[[], Mapping[tuple[str, str], str]] = _no_failed_loads
    trouble: Callable[[], str] = _no_trouble

    async def look(self) -> Health:
        """How it is now.

        Raises:
            Unavailable: it could not be read.
        """
        pinged = {(seen.model, seen.pool): seen for seen in await self.registry.health()}
        alive = await self.workers.workers(self.clock())
        found: list[WorkerHealth] = []
        is_waiting = False
        for spec in await self.registry.models():
            for pool in await self.registry.pools(spec.name):
                ping = pinged.get((spec.name, pool.name))
                if not await self._is_up(spec.name, pool, alive):
                    if _may_load(pool, alive):
                        why = self.failed_loads().get((pool.name, spec.name))
                        found.extend([self._ill(spec.name, pool, why)] if why else [])
                        continue
                    missing = await self._missing(spec.name, pool, alive)
                    found.extend([missing] if missing else [])
                    is_waiting |= missing is None and pool.min_workers > 0
                elif ping is None:
                    is_waiting = True
                else:
                    found.append(ping)
        trouble = self.trouble()
        status = Status.DEGRADED if trouble else _status(found, is_waiting)
        return Health(status, found, trouble)

    async def _is_up(self, model: str, pool: Pool, alive: Sequence[Worker]) -> bool:
        if pool.is_fixed:
            return True
        return any(worker.pool == pool.name and worker.has(model) for worker in alive)

    async def _missing(
        self, model: str, pool: Pool, alive: Sequence[Worker]
    ) -> WorkerHealth | None:
        """What is wrong with a pool that has nobody up; None where that is as it should be."""
        size = await self.capacity.size(pool)
        trouble = self.troubles().get(pool.name, "")
        if size.desired == 0 or (size.starting > 0 and not trouble):
            return None
        detail = trouble or _told_by(pool, alive) or "no worker of the pool is up"
        return self._ill(model, pool, detail)

    def _ill(self, model: str, pool: Pool, detail: str) -> WorkerHealth:
        return WorkerHealth(model, pool.name, False, 0.0, self.clock(), detail)


def _may_load(pool: Pool, alive: Sequence[Worker]) -> bool:
    """Whether somebody is up who loads models when work waits for them."""
    return pool.loads_on_demand and any(
        worker.pool == pool.name and worker.state is not WorkerState.DEGRADED for worker in alive
    )


async def pinged_health(registry: Registry, clock: Clock) -> Health:
    """How it is by what is on record, for whoever knows nothing of workers.

    A pool that has not been tried lately is at zero: how it was before says nothing of now.

    Raises:
        Unavailable: it could not be read.
    """
    known, since = await registry.health(), clock() - LATELY_S
    found = [seen for seen in known if seen.checked_at > since]
    return Health(_status(found, is_waiting=not known), found)


async def note_stuck(
    registry: Registry, workers: WorkerRegistry, pools: Collection[str], clock: Clock
) -> None:
    """Put on record that these pools bring no worker up: the pinger meets nobody there.

    It holds until the pinger does, or for `LATELY_S` seconds: to be noted again while it is so.

    Raises:
        Unavailable: it could not be read or written.
    """
    now = clock()
    alive = await workers.workers(now)
    for spec in await registry.models():
        for pool in await registry.pools(spec.name):
            if pool.name in pools:
                detail = _told_by(pool, alive) or STUCK
                ill = WorkerHealth(spec.name, pool.name, False, 0.0, now, detail)
                await registry.record_health(ill)


def _told_by(pool: Pool, alive: Sequence[Worker]) -> str:
    """What a worker of the pool says is the matter with it; empty where none does."""
    details = (worker.detail for worker in alive if worker.pool == pool.name)
    return next(filter(None, details), "")


def _status(found: Sequence[WorkerHealth], is_waiting: bool) -> Status:
    if not all(seen.healthy for seen in found):
        return Status.DEGRADED
    return Status.STARTING if is_waiting and not found else Status.OK
