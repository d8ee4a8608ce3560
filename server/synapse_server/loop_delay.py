"""How late the event loop is: what this process does not hear in time is no worker's fault."""

from __future__ import annotations

import asyncio
import math
import time

TICK_S = 0.01

GRACE_S = 0.002
"""Timers are as coarse as that."""


class LoopDelay:
    """All the seconds for which the loop could not listen: it computed, or had no core."""

    def __init__(self) -> None:
        self._late_s = 0.0
        self._due_at = math.inf

    def __call__(self) -> float:
        """Up to now, with what is overdue at this moment."""
        return self._late_s + max(0.0, time.monotonic() - self._due_at)

    async def watch(self) -> None:
        """Keep count until cancelled."""
        while True:
            self._due_at = time.monotonic() + TICK_S + GRACE_S
            await asyncio.sleep(TICK_S)
            self._late_s, self._due_at = self(), math.inf
