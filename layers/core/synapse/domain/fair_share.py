"""Who is served next: of the priorities of a queue, and of the tenants of a priority.

The high priorities come first and the low ones still come, by stride scheduling (Waldspurger and
Weihl, "Stride Scheduling: Deterministic Proportional-Share Resource Management", MIT/LCS/TM-528,
1995). Every priority has tickets. Serving one item moves its pass on by 1 / tickets, and the lowest
pass is served next, so that under overload each priority gets places in proportion to its tickets:
of 73 places 64, 8 and 1. Raising old jobs by rank ("ageing") would instead turn every backlog that
is older than its step into one line, in which an urgent newcomer waits behind all of it.

Of the tenants who has had least comes first, by start-time fair queueing (Goyal, Vin and Cheng,
"Start-time Fair Queueing", SIGCOMM 1996): each job moves its tenant's turn on by what it costs, so
that a tenant with much to do delays another's one job by no more than the job that is under way.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Collection

from synapse.domain.job import Priority

TICKETS = {Priority.HIGH: 64, Priority.NORMAL: 8, Priority.LOW: 1}


class FairShare:
    """The passes of the priorities of one queue."""

    def __init__(self) -> None:
        self._pass = dict.fromkeys(Priority, 0.0)
        self._now = 0.0

    def joined(self, priority: Priority) -> None:
        """Note that a priority has work again: it saves up no turns while it has none."""
        self._pass[priority] = max(self._pass[priority], self._now)

    def next(self, waiting: Collection[Priority]) -> Priority:
        """Of the priorities that have work, the one whose turn it is; the higher one on a tie."""
        chosen = min(waiting, key=lambda priority: (self._pass[priority], priority.rank))
        self._now = self._pass[chosen]
        self.charge(chosen, 1)
        return chosen

    def charge(self, priority: Priority, items: int) -> None:
        """Note that so many items of a priority were served: the first of a job is by `next`."""
        self._pass[priority] += items / TICKETS[priority]


class Turns:
    """Whose turn it is of the tenants that wait in a line; those who are equal alternate."""

    def __init__(self) -> None:
        self._now = 0.0
        self._start: dict[str, float] = {}
        self._entry: dict[str, int] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._numbers = itertools.count()

    def join(self, name: str) -> None:
        """Note that somebody has work again: nobody saves up turns while they have none."""
        self._forget()
        self._enter(name, max(self._now, self._start.get(name, 0.0)))

    def leave(self, name: str) -> None:
        """Note that somebody has no work left; what they have had is remembered."""
        self._entry.pop(name, None)

    def next(self) -> str:
        """Whose turn it is; somebody must wait."""
        while True:
            _, number, name = self._heap[0]
            if self._entry.get(name) == number:
                return name
            heapq.heappop(self._heap)

    def charge(self, name: str, cost: float) -> None:
        """Note that somebody who waits was served, or that it came to nothing (a cost below 0)."""
        if cost > 0:
            self._now = max(self._now, self._start[name])
        self._enter(name, max(0.0, self._start.get(name, self._now) + cost))

    def _enter(self, name: str, start: float) -> None:
        number = next(self._numbers)
        self._start[name], self._entry[name] = start, number
        heapq.heappush(self._heap, (start, number, name))

    def _forget(self) -> None:
        """Drop what no longer matters, once there is more of it than of what does."""
        if len(self._start) > 2 * len(self._entry) + 64:
            kept = self._start.items()
            self._start = {n: s for n, s in kept if n in self._entry or s > self._now}
        if len(self._heap) > 2 * len(self._entry) + 64:
            self._heap = [each for each in self._heap if self._entry.get(each[2]) == each[1]]
            heapq.heapify(self._heap)
