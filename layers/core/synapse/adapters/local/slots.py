"""Who holds the engines' slots on one machine: batches of jobs, and callers on the line."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import defaultdict

from synapse.ids import new_id
from synapse.ports import Clock, Entry

SPARE_ENDS = 64
"""So many ends of entries that have left are kept before they are cleared away."""


class _Count:
    """What is in flight of one model in one pool."""

    def __init__(self) -> None:
        self.jobs = 0
        self._items = 0
        self._entries: dict[str, Entry] = {}
        self._ends: list[tuple[float, str]] = []

    def in_flight(self, now: float) -> int:
        self._drop_expired(now)
        return self.jobs + self._items

    def next_end(self, now: float) -> float | None:
        """When the next entry expires; None if there is none."""
        self._drop_expired(now)
        return self._ends[0][0] if self._entries else None

    def add(self, entry: Entry) -> None:
        self._entries[entry.id] = entry
        self._items += entry.items
        heapq.heappush(self._ends, (entry.expires_at, entry.id))

    def drop(self, entry_id: str) -> bool:
        """Whether it was still counted."""
        entry = self._entries.pop(entry_id, None)
        if entry is None:
            return False
        self._items -= entry.items
        if len(self._ends) > 2 * len(self._entries) + SPARE_ENDS:
            self._ends = [(entry.expires_at, entry.id) for entry in self._entries.values()]
            heapq.heapify(self._ends)
        return True

    def _drop_expired(self, now: float) -> None:
        while self._ends and (self._ends[0][0] <= now or self._ends[0][1] not in self._entries):
            _, entry_id = heapq.heappop(self._ends)
            self.drop(entry_id)


class SlotLedger:
    """Items in flight per model and pool, of both lanes.

    Jobs start only into free slots, so one that is queued never gets in front of a direct request
    that waits; direct requests may go beyond the slots, as far as their limit lets them.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._counts: defaultdict[str, defaultdict[str, _Count]] = defaultdict(
            lambda: defaultdict(_Count)
        )
        self._sleepers: defaultdict[str, list[asyncio.Future[None]]] = defaultdict(list)

    def in_flight(self, model: str, pool: str = "") -> int:
        """Items of the model under way in both lanes; in all pools, if none is named."""
        now, counts = self._clock(), self._counts[model]
        if pool:
            return counts[pool].in_flight(now)
        return sum(count.in_flight(now) for count in counts.values())

    def occupy(self, model: str, pool: str, items: int) -> None:
        """Note that items of jobs have started."""
        self._counts[model][pool].jobs += items

    def free(self, model: str, pool: str, items: int) -> None:
        """Note that items of jobs have ended."""
        self._counts[model][pool].jobs -= items
        self._wake(model)

    async def wait_freed(self, model: str) -> None:
        """Return when the next item of the model ends in any pool, or an entry of it expires."""
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sleepers = self._sleepers[model]
        sleepers.append(sleeper)
        now = self._clock()
        ends = [
            end
            for count in self._counts[model].values()
            if (end := count.next_end(now)) is not None
        ]
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(ends) - now if ends else None):
                    await sleeper
        finally:
            sleepers.remove(sleeper)

    async def enter(
        self, model: str, pool: str, items: int, limit: int, expires_at: float
    ) -> Entry | None:
        """See `InFlight`."""
        count = self._counts[model][pool]
        ahead = count.in_flight(self._clock())
        if ahead + items > limit:
            return None
        entry = Entry(new_id(), model, pool, items, ahead, expires_at)
        count.add(entry)
        return entry

    async def leave(self, entry: Entry) -> None:
        """See `InFlight`."""
        if self._counts[entry.model][entry.pool].drop(entry.id):
            self._wake(entry.model)

    async def count(self, model: str, pool: str) -> int:
        """See `InFlight`."""
        return self.in_flight(model, pool)

    def _wake(self, model: str) -> None:
        for sleeper in self._sleepers[model]:
            if not sleeper.done():
                sleeper.set_result(None)
