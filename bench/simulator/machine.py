"""A worker as the simulator sees it: items share it, each the slower the more there are."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from bench.simulator.events import Event, Events
from synapse.domain.profile import slowdown


@dataclass(frozen=True, slots=True)
class Pace:
    """How a worker's items hold each other up, as in a profile (`domain.profile.slowdown`)."""

    slots: int
    company: float = 1.0
    saturates_at: int = 0


@dataclass(slots=True)
class _Item:
    work_s: float
    ended: Callable[[], None]


class Machine:
    """Serves up to `slots` items at once; the others wait, the most urgent first, then by age.

    Each of n items in service proceeds at 1 / slowdown(n) of the speed of one alone. As that is the
    same for all, a clock that runs at that speed says when each ends: an item that comes in at v
    with w seconds of work ends when this clock shows v + w.
    """

    def __init__(self, events: Events, pace: Pace) -> None:
        self._events = events
        self._pace = pace
        self._numbers = itertools.count()
        self._serving: list[tuple[float, int, _Item]] = []
        self._waiting: list[tuple[int, int, _Item]] = []
        self._shown_s = 0.0
        self._shown_at = events.now
        self._next: Event | None = None
        self.busy_s = 0.0
        """For how long anything was in service."""

    @property
    def load(self) -> int:
        """Items in service and waiting."""
        return len(self._serving) + len(self._waiting)

    def take(self, work_s: float, urgency: int, ended: Callable[[], None]) -> None:
        """An item that takes `work_s` alone; of those that wait the least `urgency` is first."""
        heapq.heappush(self._waiting, (urgency, next(self._numbers), _Item(work_s, ended)))
        self._catch_up()
        self._fill()
        self._plan()

    def _catch_up(self) -> None:
        """Move the common clock on to now."""
        elapsed_s, serving = self._events.now - self._shown_at, len(self._serving)
        self._shown_at = self._events.now
        if serving:
            self._shown_s += elapsed_s / self._slowdown(serving)
            self.busy_s += elapsed_s

    def _slowdown(self, serving: int) -> float:
        return slowdown(serving, self._pace.company, self._pace.saturates_at)

    def _fill(self) -> None:
        while self._waiting and len(self._serving) < self._pace.slots:
            _, number, item = heapq.heappop(self._waiting)
            heapq.heappush(self._serving, (self._shown_s + item.work_s, number, item))

    def _plan(self) -> None:
        """See to the item that ends next."""
        if self._next is not None:
            self._next.cancel()
        self._next = None
        if self._serving:
            left_s = max(0.0, self._serving[0][0] - self._shown_s)
            self._next = self._events.after(
                left_s * self._slowdown(len(self._serving)), self._end_first
            )

    def _end_first(self) -> None:
        self._catch_up()
        _, _, item = heapq.heappop(self._serving)
        self._fill()
        self._plan()
        item.ended()
