"""How much of a model is under way in each pool, for callers on the line and for jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from synapse.domain.job import SlaTier
from synapse.domain.window import Traffic


@dataclass(frozen=True, slots=True)
class Entry:
    """Items of one request under way in a pool, and how many were in flight when it came.

    It counts until it is left, and in no case beyond `expires_at` (seconds since the epoch; what
    was asked for, or up to a minute later), so that what a crashed holder had comes back.
    """

    id: str
    model: str
    pool: str
    items: int
    ahead: int
    expires_at: float
    tier: SlaTier = SlaTier.SILVER


class InFlight(Protocol):
    """Counts the items in flight of each model in each pool, over all who serve it."""

    async def enter(
        self,
        model: str,
        pool: str,
        items: int,
        limit: int,
        expires_at: float,
        tier: SlaTier = SlaTier.SILVER,
    ) -> Entry | None:
        """Count `items` more, unless more than `limit` would then be in flight there (None).

        Raises:
            Unavailable: they could not be counted.
        """
        ...

    async def leave(self, entry: Entry) -> None:
        """Count the entry no more; one that has left or expired is ignored. Raises nothing."""
        ...

    async def traffic_of(self, model: str, pool: str) -> Traffic:
        """What is in flight now by tiers, and what the better ones had lately.

        Raises:
            Unavailable: they could not be counted.
        """
        ...

    async def count(self, model: str, pool: str) -> int:
        """Items in flight now.

        Raises:
            Unavailable: they could not be counted.
        """
        ...
