"""Where it is written down what was used, and where idle time waits to be paid for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from synapse.domain.usage import UsageKey, Used


class UsageStore(Protocol):
    """Sums of what was used. What jobs used is counted by the JobStore, with their ends."""

    async def add(self, key: UsageKey, used: Used) -> None:
        """Count what a request on the line used. Raises nothing.

        On return it is counted, or will be within a second: only what a process had not yet
        written when it was killed is lost.
        """
        ...

    async def used(self, tenant: str, first_day: str, last_day: str) -> Mapping[UsageKey, Used]:
        """What a tenant used on these days, both included.

        Raises:
            Unavailable: it could not be read.
        """
        ...


class IdleMeter(Protocol):
    """The idle time of each pool that nobody has paid for yet (`domain.receipt.IdleTime`)."""

    async def charge(
        self, pool: str, now: float, up_since: Sequence[float], busy_s: float
    ) -> float:
        """What a request pays that did so much work: worker-seconds of the pool's idle time.

        `up_since` says of each worker that is up since when it is. Raises nothing: where the
        meter cannot be reached nothing is charged.
        """
        ...
