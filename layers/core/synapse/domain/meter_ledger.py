"""All meters in memory: what one machine counts with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from synapse.domain.limiting import Verdict, standing_of, verdict_on
from synapse.domain.metering import (
    NOTHING_COUNTED,
    Bounds,
    Counts,
    MeterId,
    Reservation,
    ReservationId,
    Used,
)

EXPIRY_EVERY_S = 10.0
"""How often it is looked for what has expired, at most: it goes through all that is open."""


class MeterLedger:
    """Counts, and the open reservations; every change is made without waiting for anything."""

    def __init__(
        self,
        counts: Mapping[MeterId, Counts] | None = None,
        reservations: Iterable[Reservation] = (),
    ) -> None:
        """Take up what was counted; what is open, and held, follows from `reservations`."""
        known = (counts or {}).items()
        self._counts = {meter: replace(each, open=0, held=0) for meter, each in known}
        self._open = {reservation.id: reservation for reservation in reservations}
        self._expired_at = 0.0
        for reservation in self._open.values():
            for meter in reservation.meters:
                self._counts[meter] = self.counts(meter).with_open(reservation)

    def counts(self, meter: MeterId) -> Counts:
        """What a meter shows."""
        return self._counts.get(meter, NOTHING_COUNTED)

    def meters(self) -> list[MeterId]:
        """Those that have counted anything."""
        return list(self._counts)

    def open(self) -> list[Reservation]:
        """What is not settled."""
        return list(self._open.values())

    def reserve(self, asked: Reservation, bounds: Bounds) -> Verdict:
        """Count a request on all of its meters, or on none; one that is counted is let in again."""
        counts = {meter: self.counts(meter).at(asked.at) for meter in bounds}
        if asked.id in self._open:
            return Verdict(None, standing_of(bounds, counts, asked.at), is_new=False)
        verdict = verdict_on(bounds, counts, asked)
        if verdict.refusal is None:
            for meter, before in counts.items():
                self._counts[meter] = before.reserved(asked)
            self._open[asked.id] = asked
        return verdict

    def settle(self, reservation_id: ReservationId, used: Used | None) -> Reservation | None:
        """Correct what was reserved, once; None if it is settled already, or never was."""
        reservation = self._open.pop(reservation_id, None)
        if reservation is not None:
            final = reservation.counted_as(used)
            for meter in reservation.meters:
                self._counts[meter] = self.counts(meter).settled(reservation, final)
        return reservation

    def expire(self, now: float) -> list[Reservation]:
        """Settle as it was reserved what nobody has settled in its time, and return it."""
        if 0 <= now - self._expired_at < EXPIRY_EVERY_S:
            return []
        self._expired_at = now
        expired = [each for each in self._open.values() if each.has_expired(now)]
        for reservation in expired:
            self.settle(reservation.id, None)
        return expired
