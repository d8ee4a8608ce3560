"""Where it is counted what callers use of their limits."""

from __future__ import annotations

from typing import Protocol

from synapse.domain.limiting import Verdict
from synapse.domain.metering import Bounds, Reservation, ReservationId, Used


class Meter(Protocol):
    """Counts of accounts and tenants, and the reservations that are open."""

    async def reserve(self, asked: Reservation, bounds: Bounds) -> Verdict:
        """Count a request on each of `bounds`, if it fits within all of them; else on none.

        So are several that are reserved as one. `asked.meters` are those of `bounds`. A reservation
        that is open already is let in and not counted again.

        Raises:
            Unavailable: it could not be counted; it may stay counted until it expires.
        """
        ...

    async def settle(self, reservation_id: ReservationId, used: Used | None) -> None:
        """Correct what was reserved to what was used, once: again, or of nothing, does nothing.

        Where nobody knows what was used (None), it is taken to be as much as was reserved.

        A reservation that nobody settles is settled as it was reserved some time after it has
        expired.

        Raises:
            Unavailable: it could not be done.
        """
        ...
