"""The idle time of the pools of one machine, in memory: a server that starts has none yet."""

from __future__ import annotations

from collections.abc import Sequence

from synapse.domain.receipt import IdleTime
from synapse.ports import Clock


class LocalIdleMeter:
    """See the port `IdleMeter`. Pools are metered from when the meter is made."""

    def __init__(self, clock: Clock) -> None:
        self._began_at = clock()
        self._idle: dict[str, IdleTime] = {}

    async def charge(
        self, pool: str, now: float, up_since: Sequence[float], busy_s: float
    ) -> float:
        """See the port."""
        idle = self._idle.get(pool) or IdleTime(self._began_at)
        self._idle[pool], taken_s = idle.charged(now, up_since, busy_s)
        return taken_s
