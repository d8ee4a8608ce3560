"""Who holds the engines' slots on one machine: batches of jobs, and callers on the line."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import itertools
from bisect import insort
from collections import defaultdict

from synapse.domain.job import SlaTier
from synapse.domain.window import Peak, Traffic
from synapse.ids import new_id
from synapse.ports import Clock, Entry

SPARE_ENDS = 64
"""So many ends of entries that have left are kept before they are cleared away."""

_Sleeper = tuple[int, int, asyncio.Future[None]]


class _Count:
    """What is in flight of one model in one pool: jobs, and entries of direct requests."""

    def __init__(self) -> None:
        self._better = 0
        self._bronze = 0
        self._peak = Peak()
        self._entries: dict[str, Entry] = {}
        self._ends: list[tuple[float, str]] = []

    def in_flight(self, now: float) -> int:
        self._drop_expired(now)
        return self._better + self._bronze

    def traffic(self, now: float) -> Traffic:
        self._drop_expired(now)
        return self._peak.traffic(now, self._better, self._bronze)

    def change(self, now: float, items: int, tier: SlaTier) -> None:
        """So many more, or fewer if negative."""
        if tier is SlaTier.BRONZE:
            self._bronze += items
            return
        before = self._better
        self._better += items
        self._peak.note(now, max(before, self._better), tier)

    def next_end(self, now: float) -> float | None:
        """When the next entry expires; None if there is none."""
        self._drop_expired(now)
        return self._ends[0][0] if self._entries else None

    def add(self, now: float, entry: Entry) -> None:
        self._entries[entry.id] = entry
        self.change(now, entry.items, entry.tier)
        heapq.heappush(self._ends, (entry.expires_at, entry.id))

    def drop(self, now: float, entry_id: str) -> bool:
        """Whether it was still counted."""
        entry = self._entries.pop(entry_id, None)
        if entry is None:
            return False
        self.change(now, -entry.items, entry.tier)
        if len(self._ends) > 2 * len(self._entries) + SPARE_ENDS:
            self._ends = [(entry.expires_at, entry.id) for entry in self._entries.values()]
            heapq.heapify(self._ends)
        return True

    def _drop_expired(self, now: float) -> None:
        while self._ends and (self._ends[0][0] <= now or self._ends[0][1] not in self._entries):
            _, entry_id = heapq.heappop(self._ends)
            self.drop(now, entry_id)


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
        self._sleepers: defaultdict[str, list[_Sleeper]] = defaultdict(list)
        self._numbers = itertools.count()

    def in_flight(self, model: str, pool: str = "") -> int:
        """Items of the model under way in both lanes; in all pools, if none is named."""
        now, counts = self._clock(), self._counts[model]
        if pool:
            return counts[pool].in_flight(now)
        return sum(count.in_flight(now) for count in counts.values())

    def traffic(self, model: str, pool: str) -> Traffic:
        """What is under way in a pool, by tiers."""
        return self._counts[model][pool].traffic(self._clock())

    def occupy(self, model: str, pool: str, items: int, tier: SlaTier = SlaTier.BRONZE) -> None:
        """Note that items of jobs have started."""
        self._counts[model][pool].change(self._clock(), items, tier)

    def free(self, model: str, pool: str, items: int, tier: SlaTier = SlaTier.BRONZE) -> None:
        """Note that items of jobs have ended."""
        self._counts[model][pool].change(self._clock(), -items, tier)
        self.wake(model)

    async def wait_freed(
        self, model: str, tier: SlaTier = SlaTier.BRONZE, timeout_s: float | None = None
    ) -> None:
        """Return when the next item of the model ends in any pool, or an entry of it expires.

        Who waits for a better tier is woken first; nobody waits longer than `timeout_s`.
        """
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (tier.rank, next(self._numbers), sleeper)
        sleepers = self._sleepers[model]
        insort(sleepers, entry)
        now = self._clock()
        ends = [count.next_end(now) for count in self._counts[model].values()]
        waits_s = [end - now for end in ends if end is not None]
        if timeout_s is not None:
            waits_s.append(timeout_s)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(waits_s, default=None)):
                    await sleeper
        finally:
            sleepers.remove(entry)

    def wake(self, model: str) -> None:
        """Have whoever waits for a slot of the model look again."""
        for _, _, sleeper in self._sleepers[model]:
            if not sleeper.done():
                sleeper.set_result(None)

    async def enter(
        self,
        model: str,
        pool: str,
        items: int,
        limit: int,
        expires_at: float,
        tier: SlaTier = SlaTier.SILVER,
    ) -> Entry | None:
        """See `InFlight`."""
        count, now = self._counts[model][pool], self._clock()
        ahead = count.in_flight(now)
        if ahead + items > limit:
            return None
        entry = Entry(new_id(), model, pool, items, ahead, expires_at, tier)
        count.add(now, entry)
        return entry

    async def leave(self, entry: Entry) -> None:
        """See `InFlight`."""
        if self._counts[entry.model][entry.pool].drop(self._clock(), entry.id):
            self.wake(entry.model)

    async def count(self, model: str, pool: str) -> int:
        """See `InFlight`."""
        return self.in_flight(model, pool)

    async def traffic_of(self, model: str, pool: str) -> Traffic:
        """See `InFlight`."""
        return self.traffic(model, pool)
