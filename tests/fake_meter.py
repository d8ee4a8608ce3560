"""A meter that adds up, each time it is asked, all that was ever reserved."""

from __future__ import annotations

from dataclasses import dataclass

from synapse.domain.limiting import Verdict, verdict_on
from synapse.domain.metering import (
    Bounds,
    Counts,
    MeterId,
    Reservation,
    ReservationId,
    Used,
    minute_of,
    month_of,
)


@dataclass
class Entry:
    """A reservation, and what was used in its place once it is settled."""

    reservation: Reservation
    used: Used | None = None


class MemoryMeter:
    """See the port `Meter`."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []

    async def reserve(self, asked: Reservation, bounds: Bounds) -> Verdict:
        self._expire(asked.at)
        counts = {meter: self.counts(meter, asked.at) for meter in bounds}
        verdict = verdict_on(bounds, counts, asked)
        if self._entry(asked.id) is not None:
            return Verdict(None, verdict.standing, is_new=False)
        if verdict.refusal is None:
            self.entries.append(Entry(asked))
        return verdict

    async def settle(self, reservation_id: ReservationId, used: Used | None) -> None:
        entry = self._entry(reservation_id)
        if entry is not None:
            entry.used = entry.reservation.counted_as(used)

    def counts(self, meter: MeterId, now: float) -> Counts:
        """What the meter shows."""
        mine = [each for each in self.entries if meter in each.reservation.meters]
        minute, month = minute_of(now), month_of(now)
        in_minute = [_used(e) for e in mine if minute_of(e.reservation.at) == minute]
        in_month = [_used(e) for e in mine if month_of(e.reservation.at) == month]
        return Counts(
            minute,
            sum(used.requests for used in in_minute),
            sum(used.tokens for used in in_minute),
            month,
            sum(used.nano_usd for used in in_month),
            sum(each.reservation.requests for each in mine if each.used is None),
            sum(
                each.reservation.nano_usd
                for each in mine
                if each.used is None and month_of(each.reservation.at) == month
            ),
        )

    def _entry(self, reservation_id: ReservationId) -> Entry | None:
        """The one that is open."""
        for entry in self.entries:
            if entry.reservation.id == reservation_id and entry.used is None:
                return entry
        return None

    def _expire(self, now: float) -> None:
        for entry in self.entries:
            if entry.used is None and entry.reservation.has_expired(now):
                entry.used = entry.reservation.all_used


def _used(entry: Entry) -> Used:
    return entry.reservation.all_used if entry.used is None else entry.used
