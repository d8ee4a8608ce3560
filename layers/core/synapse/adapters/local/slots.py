"""Who holds the engine's slots on one machine: batches of jobs, and callers on the line."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, defaultdict

from synapse.ids import new_id
from synapse.ports import Clock, Entry


class SlotLedger:
    """Items in flight per model, of both lanes.

    Jobs start only into free slots, so one that is queued never gets in front of a direct request
    that waits; direct requests may go beyond the slots, as far as their limit lets them.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._jobs: Counter[str] = Counter()
        self._entries: defaultdict[str, dict[str, Entry]] = defaultdict(dict)
        self._sleepers: defaultdict[str, list[asyncio.Future[None]]] = defaultdict(list)

    def in_flight(self, model: str) -> int:
        """Items of the model under way in both lanes."""
        return self._jobs[model] + sum(entry.items for entry in self._live(model).values())

    def occupy(self, model: str, items: int) -> None:
        """Note that items of jobs have started."""
        self._jobs[model] += items

    def free(self, model: str, items: int) -> None:
        """Note that items of jobs have ended."""
        self._jobs[model] -= items
        self._wake(model)

    async def wait_freed(self, model: str) -> None:
        """Return when the next item of the model ends, or an entry of it expires."""
        sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        sleepers = self._sleepers[model]
        sleepers.append(sleeper)
        ends = [entry.expires_at for entry in self._live(model).values()]
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(ends) - self._clock() if ends else None):
                    await sleeper
        finally:
            sleepers.remove(sleeper)

    async def enter(self, model: str, items: int, limit: int, expires_at: float) -> Entry | None:
        """See `InFlight`."""
        ahead = self.in_flight(model)
        if ahead + items > limit:
            return None
        entry = Entry(new_id(), model, items, ahead, expires_at)
        self._entries[model][entry.id] = entry
        return entry

    async def leave(self, entry: Entry) -> None:
        """See `InFlight`."""
        if self._entries[entry.model].pop(entry.id, None) is not None:
            self._wake(entry.model)

    async def count(self, model: str) -> int:
        """See `InFlight`."""
        return self.in_flight(model)

    def _live(self, model: str) -> dict[str, Entry]:
        entries = self._entries[model]
        now = self._clock()
        for entry in [entry for entry in entries.values() if entry.expires_at <= now]:
            del entries[entry.id]
        return entries

    def _wake(self, model: str) -> None:
        for sleeper in self._sleepers[model]:
            if not sleeper.done():
                sleeper.set_result(None)
