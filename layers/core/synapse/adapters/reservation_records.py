"""An open reservation as JSON, as both targets keep it beside its id."""

from __future__ import annotations

import json

from synapse.domain.metering import MeterId, Reservation, ReservationId


def reservation_to_json(reservation: Reservation) -> str:
    """What is reserved where; its id is kept elsewhere."""
    return json.dumps(
        {
            "meters": [meter.account for meter in reservation.meters],
            "at": reservation.at,
            "tokens": reservation.tokens,
            "nano_usd": reservation.nano_usd,
            "is_job": reservation.is_job,
            "requests": reservation.requests,
        }
    )


def reservation_from_json(reservation_id: ReservationId, text: str) -> Reservation:
    """The reservation of that id that `reservation_to_json` wrote."""
    record = json.loads(text)
    return Reservation(
        reservation_id,
        tuple(MeterId(reservation_id.tenant, account) for account in record["meters"]),
        record["at"],
        record["tokens"],
        record["nano_usd"],
        record["is_job"],
        # Earlier versions reserved for one at a time.
        record.get("requests", 1),
    )
