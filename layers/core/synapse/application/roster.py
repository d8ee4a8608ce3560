"""Who of a pool answers for a model: the workers' heartbeats, looked up by model and pool."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from synapse.domain.pool import Pool
from synapse.domain.worker import Worker, WorkerState
from synapse.ports import Clock, WorkerRegistry

FRESH_S = 0.2
"""How old what is known of the workers may be on one machine, where reading it is cheap."""


@dataclass(frozen=True, slots=True)
class Crew:
    """The workers of a pool, as a model sees them; the first of `starting` began at `began_at`."""

    ready: tuple[Worker, ...] = ()
    starting: int = 0
    began_at: float = 0.0

    def starts_in_s(self, pool: Pool, now: float) -> float | None:
        """Until the first of those that start should answer; None if none starts."""
        if not self.starting:
            return None
        return max(0.0, self.began_at + pool.startup_s - now)


NOBODY = Crew()


class Roster:
    """The workers as they were at most `fresh_s` ago, sorted once for all requests."""

    def __init__(self, workers: WorkerRegistry, clock: Clock, fresh_s: float = FRESH_S) -> None:
        """`clock` is that of the leases."""
        self._workers = workers
        self._clock = clock
        self._fresh_s = fresh_s
        self._read_at = float("-inf")
        self._by_pool: dict[str, list[Worker]] = {}
        self._crews: dict[tuple[str, str], Crew] = {}
        self._known: dict[str, bool] = {}
        self._up_since: dict[str, float] = {}
        self._read_before = False
        self.on_change: Callable[[str], None] = _ignore
        """Told of a worker that comes up (again), or is gone: what was held against it is past."""

    async def crew(self, model: str, pool: str) -> Crew:
        """The workers of the pool that answer for the model, and how many are on their way.

        Raises:
            Unavailable: they could not be read.
        """
        await self._refresh()
        crew = self._crews.get((model, pool))
        if crew is None:
            crew = self._crews[model, pool] = _crew(self._by_pool.get(pool, ()), model)
        return crew

    async def workers(self) -> Sequence[Worker]:
        """All that are alive, by pool and id."""
        await self._read(self._clock())
        return [worker for workers in self._by_pool.values() for worker in workers]

    async def of_pool(self, pool: str) -> Sequence[Worker]:
        """The workers of a pool that are alive, whatever they do.

        Raises:
            Unavailable: they could not be read.
        """
        await self._refresh()
        return self._by_pool.get(pool, ())

    def up_since(self, worker: Worker, startup_s: float) -> float:
        """Since when a worker answers: as seen, or as it should have where nobody looked."""
        return self._up_since.get(worker.id, worker.started_at + startup_s)

    def stale(self) -> None:
        """Read anew next time: somebody has reason to think that things have changed."""
        self._read_at = float("-inf")

    async def _refresh(self) -> None:
        now = self._clock()
        if not 0 <= now - self._read_at < self._fresh_s:
            await self._read(now)

    async def _read(self, now: float) -> None:
        by_pool: dict[str, list[Worker]] = {}
        for worker in await self._workers.workers(now):
            by_pool.setdefault(worker.pool, []).append(worker)
        self._by_pool, self._crews, self._read_at = by_pool, {}, now
        known = {w.id: _is_up(w) for workers in by_pool.values() for w in workers}
        if self._read_before:
            came_up = [i for i, is_up in known.items() if is_up and not self._known.get(i, False)]
            self._up_since |= dict.fromkeys(came_up, now)
            for worker_id in (*came_up, *(i for i in self._known if i not in known)):
                self.on_change(worker_id)
        self._up_since = {i: at for i, at in self._up_since.items() if i in known}
        self._known, self._read_before = known, True


def _ignore(worker_id: str) -> None:
    """Nobody holds anything against workers."""


def _is_up(worker: Worker) -> bool:
    """Also while it loads one more model."""
    return worker.state is not WorkerState.DEGRADED and not worker.is_starting()


def _crew(workers: Sequence[Worker], model: str) -> Crew:
    ready = tuple([worker for worker in workers if worker.has(model)])
    starting = [worker for worker in workers if worker.is_starting()]
    if not ready and not starting:
        return NOBODY
    began_at = min((worker.started_at for worker in starting), default=0.0)
    return Crew(ready, len(starting), began_at)
