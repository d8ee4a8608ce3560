"""What a runner's jobs pass on their way to an engine that others use: counted, bronze by its room.

Bronze that finds no room waits for it at the runner, where items are over in a moment: between a
look and the next of who goes away and comes again others take what was free.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from synapse.application.windows import BronzeWindows
from synapse.domain.batching import Batch
from synapse.domain.errors import EngineUnavailable, Unavailable
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import Clock, Entry, InferenceRequest, InFlight, Registry

logger = logging.getLogger(__name__)

WAIT_S = 5.0
"""So long a batch waits for the next of its items to be let in."""

MOST_S = 30.0
"""And no longer in all: an Express execution ends after 300 s, and tries a pool four times."""

LOOK_EVERY_S = 0.05

BRIEF_S = 1.0
"""An item that holds its slot no longer is over while one waits."""

MOST_WAIT = 32
"""Runners that wait for a model and pool at a time, at most: each is a function that is paid for,
and one of those that an account may run at once."""

NO_LIMIT = sys.maxsize
"""Jobs of the better tiers are never refused: they have waited already."""


@dataclass(frozen=True, slots=True)
class Entrance:
    """Opens a gate for each batch."""

    windows: BronzeWindows
    in_flight: InFlight
    registry: Registry
    clock: Clock
    sleep: Callable[[float], Awaitable[None]]

    @asynccontextmanager
    async def gate(self, spec: ModelSpec, pool: Pool, batch: Batch) -> AsyncIterator[Gate]:
        """The gate of a batch, for as long as the batch runs.

        Raises:
            EngineUnavailable: no worker is up, or none of the batch may begin now or soon.
        """
        gate = Gate(self, spec, pool, batch.sla, len(batch.job_ids), self.clock())
        try:
            await gate.look()
            yield gate
        finally:
            await gate.close()


@dataclass(slots=True)
class Gate:
    """Where the requests of one batch are let in, as they find room.

    `most` is how many of its jobs may be claimed: all, if those that find no room may wait for it.
    """

    _of: Entrance
    spec: ModelSpec
    pool: Pool
    tier: SlaTier
    most: int
    opened_at: float
    has_waited: bool = False
    _jobs: int = field(init=False)
    _let_in_at: float = field(init=False)
    _waits: bool | None = None
    _waiting: Entry | None = None
    _line: asyncio.Lock = field(default_factory=asyncio.Lock)

    def __post_init__(self) -> None:
        self._jobs, self._let_in_at = self.most, self.opened_at

    async def look(self) -> None:
        """Find out how many may be claimed; raises as `Entrance.gate` does."""
        try:
            room = await self._of.windows.may_begin(self.spec, self.pool, self.tier)
        except Unavailable as error:
            logger.warning("slots not counted: %s", error.message)
            return
        if room is None or room >= self.most or await self._may_wait():
            return
        if room <= 0:
            raise EngineUnavailable(f"pool {self.pool.name!r} is full, or kept for better tiers")
        self.most = room

    async def enter(
        self, requests: Sequence[InferenceRequest]
    ) -> tuple[Sequence[InferenceRequest], Entry | None]:
        """The first of the requests, as many as may begin, and how they are counted.

        None may where there is no room, and none comes while it is worth to wait. A count that
        fails stops nobody.

        Raises:
            EngineUnavailable: no worker is up any more.
        """
        if not self._line.locked():
            begun, entry = await self._let_in(requests)
            if begun or not await self._may_wait():
                return begun, entry
        self.has_waited = True
        async with self._line:  # first come, first served; and one looks for all
            while not self._is_over():
                begun, entry = await self._let_in(requests)
                if begun:
                    return begun, entry
                await self._look_again()
        return (), None

    async def leave(self, entry: Entry | None) -> None:
        """The engine is done with what entered together. Raises nothing."""
        if entry is not None:
            await self._of.in_flight.leave(entry)

    async def close(self) -> None:
        """Nobody waits here any more. Raises nothing."""
        waiting, self._waiting = self._waiting, None
        await self.leave(waiting)

    def _is_over(self) -> bool:
        now = self._of.clock()
        return now - self._let_in_at >= WAIT_S or now - self.opened_at >= MOST_S

    async def _look_again(self) -> None:
        """Return when there may be room, or it is too late to wait for some."""
        while not self._is_over():
            await self._of.sleep(LOOK_EVERY_S)
            try:
                room = await self._of.windows.may_begin(self.spec, self.pool, self.tier)
            except Unavailable:
                return
            if room != 0:
                return

    async def _let_in(
        self, requests: Sequence[InferenceRequest]
    ) -> tuple[Sequence[InferenceRequest], Entry | None]:
        windows, in_flight = self._of.windows, self._of.in_flight
        limit = NO_LIMIT
        try:
            if self.tier is SlaTier.BRONZE:
                limit = await windows.limit(self.spec, self.pool, requests[0].input.samples)
                room = limit - await in_flight.count(self.spec.name, self.pool.name)
                requests = _as_many_as_fit(requests, room)
            entry = await self._count(requests, limit) if requests else None
        except Unavailable as error:
            logger.warning("requests not counted: %s", error.message)
            return requests, None
        if entry is None:
            return (), None
        self._let_in_at = self._of.clock()
        return requests, entry

    async def _count(self, requests: Sequence[InferenceRequest], limit: int) -> Entry | None:
        items = sum(request.input.samples for request in requests)
        expires_at = self._of.clock() + max(request.timeout_s for request in requests)
        return await self._of.in_flight.enter(
            self.spec.name, self.pool.name, items, limit, expires_at, self.tier
        )

    async def _may_wait(self) -> bool:
        """Whether this batch waits for room. Not where many wait already, or items last long.

        Who waits is counted as what is in flight is: who dies counts for a minute at most.
        """
        if self._waits is None:
            place, until = f"{self.pool.name}#waiting", self.opened_at + MOST_S
            try:
                most = await self._most_waiting()
                if most > 0:
                    self._waiting = await self._of.in_flight.enter(
                        self.spec.name, place, 1, most, until, self.tier
                    )
            except Unavailable as error:
                logger.warning("nobody waits: %s", error.message)
            self._waits = self._waiting is not None
        return self._waits

    async def _most_waiting(self) -> int:
        # A runner with its engine in itself is a worker: it is not to stand still with both.
        if self.tier is not SlaTier.BRONZE or self.pool.runs_in_runner:
            return 0
        of = self._of
        rate = await of.registry.service_rate(self.spec.name, of.clock(), self.pool.name)
        slots = await of.windows.slots(self.spec, self.pool)
        return most_waiting(slots, rate.seconds_per_item, self._jobs)


def most_waiting(slots: int, seconds_per_item: float | None, jobs: int) -> int:
    """How many batches of so many jobs may wait at once for a pool of so many slots.

    As many as it is done with in `WAIT_S`: what waits is claimed, so that the autoscaler does not
    see it. None where items last long, or nobody knows how long.
    """
    if seconds_per_item is None or seconds_per_item > BRIEF_S:
        return 0
    items = slots * WAIT_S / max(seconds_per_item, 1e-6)
    return min(MOST_WAIT, int(items / jobs))


def _as_many_as_fit(requests: Sequence[InferenceRequest], room: int) -> Sequence[InferenceRequest]:
    items = 0
    for number, request in enumerate(requests):
        items += request.input.samples
        if items > room:
            return requests[:number]
    return requests
