"""How many deliveries one machine makes side by side, and whose turn it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Set

from synapse.domain.delivery import Delivery, Place

IN_FLIGHT = 32
PER_TENANT = 24
"""The rest is kept for the others, however many receivers of one tenant do not answer."""

PER_PLACE = 4


class Room:
    """The room beside what is under way; one at a time goes where the last one was not taken."""

    def __init__(self, under_way: Collection[Delivery], failing: Set[Place]) -> None:
        self.under_way = [each.id for each in under_way]
        self._failing = failing
        self._left = IN_FLIGHT
        self._tenants: Counter[str] = Counter()
        self._places: Counter[Place] = Counter()
        for each in under_way:
            self.take(each)

    @property
    def left(self) -> int:
        """How many more may be begun, whosever they are."""
        return self._left

    def at(self, place: Place) -> int:
        """How many more may be begun there."""
        return (1 if place in self._failing else PER_PLACE) - self._places[place]

    def next_of(self, tenants: Iterable[str]) -> str | None:
        """Who of them may begin one: who has the fewest, and of those the first."""
        if self._left <= 0:
            return None
        able = (each for each in tenants if self._tenants[each] < PER_TENANT)
        return min(able, key=self._tenants.__getitem__, default=None)

    def take(self, delivery: Delivery) -> None:
        """One more is under way."""
        self._left -= 1
        self._tenants[delivery.tenant] += 1
        self._places[delivery.place] += 1
