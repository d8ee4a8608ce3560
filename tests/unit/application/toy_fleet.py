"""A pool in which workers take time to start and items take time to run, on a fake clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from synapse.domain.errors import Unavailable
from synapse.domain.job import SlaTier
from synapse.domain.load import ModelDemand, TierDemand
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool, PoolSize
from synapse.domain.routing import PoolView
from synapse.domain.worker import Worker, WorkerState
from tests.fakes import FakeClock


class ToyFleet:
    """Capacity, demand and views of one pool; `tick` lets a second pass.

    Each worker finishes `per_s` items a second once it has been starting for `startup_s`; there is
    no room for one to start before `dry_until`.
    """

    def __init__(self, pool: Pool, clock: FakeClock, *, startup_s: float, per_s: int) -> None:
        self.pool = pool
        self.startup_s = startup_s
        self.per_s = per_s
        self.waiting = 0
        self.delivered = 0
        self.desired = 0
        self.fails = False
        self.dry_until = 0.0
        self.resized: list[int] = []
        self.taken_while_starting = 0
        self._clock = clock
        self._up_at: list[float] = []
        self._arrived: deque[tuple[float, int]] = deque()
        self._in_flight = 0

    @property
    def ready(self) -> int:
        """Workers that answer."""
        return sum(up_at <= self._clock() for up_at in self._up_at)

    @property
    def starting(self) -> int:
        """Workers on their way."""
        return len(self._up_at) - self.ready

    def arrive(self, items: int) -> None:
        """So many come now."""
        self.waiting += items
        self._arrived.append((self._clock(), items))

    def tick(self) -> None:
        """A second of work."""
        self._in_flight = min(self.waiting, self.ready * self.per_s)
        self.waiting -= self._in_flight
        self.delivered += self._in_flight
        self._clock.advance(1.0)

    async def size(self, pool: Pool) -> PoolSize:
        """See `Capacity`."""
        if self.fails:
            raise Unavailable("the toy is broken")
        return PoolSize(self.desired, self.ready, self.starting)

    async def resize(self, pool: Pool, desired: int) -> None:
        """See `Capacity`."""
        if desired < self.desired and self.starting:
            self.taken_while_starting += 1
        self.desired = desired
        self.resized.append(desired)
        self._up_at = sorted(self._up_at)[:desired]
        missing = desired - len(self._up_at)
        self._up_at += [max(self._clock(), self.dry_until) + self.startup_s] * missing

    async def demand(self, now: float) -> Sequence[ModelDemand]:
        """See `DemandSource`."""
        while self._arrived and self._arrived[0][0] <= now - 60:
            self._arrived.popleft()
        rate = sum(items for _, items in self._arrived) / 60
        last_at = self._arrived[-1][0] if self._arrived else None
        return [ModelDemand("echo", {SlaTier.SILVER: TierDemand(self.waiting, rate, last_at)})]

    async def views(self, spec: ModelSpec) -> Sequence[PoolView]:
        """What the router sees."""
        return [
            PoolView(
                self.pool,
                slots=spec.slots,
                ready=self.ready,
                starting=self.starting,
                in_flight=min(self._in_flight, self.ready * spec.slots),
                seconds_per_item=spec.slots / self.per_s,
            )
        ]

    async def workers(self, now: float) -> Sequence[Worker]:
        """See `WorkerRegistry`."""
        states = [WorkerState.READY] * self.ready + [WorkerState.LOADING] * self.starting
        return [
            Worker(str(n), self.pool.name, "cpu", state, "", (), 0.0, now, now + 60)
            for n, state in enumerate(states)
        ]

    async def beat(self, worker: Worker) -> None:
        """See `WorkerRegistry`."""

    async def expire(self, now: float) -> Sequence[Worker]:
        """See `WorkerRegistry`."""
        return []

    async def forget(self, worker_id: str) -> None:
        """See `WorkerRegistry`."""
