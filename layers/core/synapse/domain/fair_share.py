"""Which priority is served next, so that the high ones come first and the low ones still come.

Stride scheduling (Waldspurger and Weihl, "Stride Scheduling: Deterministic Proportional-Share
Resource Management", MIT/LCS/TM-528, 1995). Every priority has tickets. Serving one item moves
its pass on by 1 / tickets, and the lowest pass is served next, so that under overload each
priority gets places in proportion to its tickets: of 73 places 64, 8 and 1. Raising old jobs by
rank ("ageing") would instead turn every backlog that is older than its step into one line, in
which an urgent newcomer waits behind all of it.
"""

from __future__ import annotations

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
        self._pass[chosen] += 1 / TICKETS[chosen]
        return chosen
