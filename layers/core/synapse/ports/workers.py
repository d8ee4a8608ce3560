"""Which workers are alive, and how many of each pool there should be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from synapse.domain.pool import Pool, PoolSize
from synapse.domain.worker import Worker


class WorkerRegistry(Protocol):
    """Who beats, lives: a worker is known until its lease ends."""

    async def beat(self, worker: Worker) -> None:
        """Write down a heartbeat; one that was overtaken by a later one is ignored.

        Raises:
            Unavailable: it could not be written; the next one comes soon.
        """
        ...

    async def workers(self, now: float) -> Sequence[Worker]:
        """Those whose lease runs at `now`, by pool and id; may be a few seconds old.

        Raises:
            Unavailable: they could not be read.
        """
        ...

    async def expire(self, now: float) -> Sequence[Worker]:
        """Forget those whose lease has ended, and return each once over all who ask."""
        ...

    async def forget(self, worker_id: str) -> None:
        """Forget a worker that has gone down in good order."""
        ...


class Capacity(Protocol):
    """The number of workers of each pool. Only the autoscaler writes it."""

    async def size(self, pool: Pool) -> PoolSize:
        """The present size.

        Raises:
            Unavailable: it could not be read.
        """
        ...

    async def resize(self, pool: Pool, desired: int) -> None:
        """Ask for so many workers; return at once, they come and go in their own time.

        Whoever is taken away is drained first: it ends what it has.

        Raises:
            Unavailable: it could not be asked for.
        """
        ...


class Environments(Protocol):
    """Runner functions whose environments grow cold when they are not called."""

    async def keep_warm(self, pool: Pool, environments: int) -> int:
        """Call so many environments of the pool's runner at once; how many of them answered.

        Raises:
            Unavailable: the runner could not be called.
        """
        ...
