"""How late the event loop is: what this process does not hear in time is no worker's fault."""

from __future__ import annotations

import asyncio
import math
import time

TICK_S = 0.01

GRACE_S = 0.002
"""Timers are as coarse as that."""


class LoopDelay:
    """All the seconds for which the loop could not listen: it computed, or had no core.

    Counted while somebody waits for an answer; at rest nothing ticks.
    """

    def __init__(self) -> None:
        self._late_s = 0.0
        self._due_at = math.inf
        self._waiting = 0
        self._timer: asyncio.TimerHandle | None = None

    def __call__(self) -> float:
        """Up to now, with what is overdue at this moment."""
        return self._late_s + max(0.0, time.monotonic() - self._due_at)

    def begin(self) -> None:
        """Somebody waits from now on."""
        self._waiting += 1
        if self._timer is None:
            self._expect()

    def end(self) -> None:
        """One of them does no more."""
        self._waiting -= 1
        if self._waiting == 0 and self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._late_s, self._due_at = self(), math.inf

    def _expect(self) -> None:
        self._due_at = time.monotonic() + TICK_S + GRACE_S
        self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._late_s = self()
        self._expect()
