"""The queue of SQS that gathers: what comes in a window is handed over together."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench.simulator.events import Event, Events
from synapse.domain.batching import JobMessage

GATHER_S = 2.0
MOST = 500
"""The window, and how many it takes at once, of the queue of low priority in template.yaml."""


@dataclass(slots=True)
class GatheringQueue:
    """Hands messages over when its window is over, which the first of them opens, or it is full."""

    events: Events
    hand_over: Callable[[Sequence[JobMessage]], None]
    _there: deque[JobMessage] = field(default_factory=deque)
    _due: Event | None = None

    def add(self, messages: Sequence[JobMessage]) -> None:
        """They have come."""
        self._there.extend(messages)
        while len(self._there) >= MOST:
            self._hand_over()
        if self._there and self._due is None:
            self._due = self.events.after(GATHER_S, self._hand_over)

    def _hand_over(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        number = min(len(self._there), MOST)
        self.hand_over([self._there.popleft() for _ in range(number)])
