"""Webhooks of one machine: endpoints in access.db, deliveries in jobs.db beside what they tell of.

The end of a job or a batch and the mark that it is untold are one write. The mark goes once the
deliveries are recorded, whose ids follow from what they tell of: a crash between the two loses
nothing and doubles nothing.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from functools import partial

from synapse.adapters.file_batch_records import file_batch_from_json
from synapse.adapters.local.access_database import AccessDatabase
from synapse.adapters.local.database import Database
from synapse.adapters.local.job_rows import SELECT_JOB, job_of
from synapse.adapters.webhook_records import (
    delivery_from_json,
    delivery_to_json,
    endpoint_from_json,
    endpoint_to_json,
)
from synapse.domain.delivery import RETENTION_S, Delivery, DeliveryState
from synapse.domain.delivery_room import Room
from synapse.domain.webhook import Endpoint, Event, event_of_batch, event_of_job
from synapse.ports import Clock

PURGED_AT_ONCE = 5000

# One step in the index a tenant and a host of it, however many deliveries each has. A place whose
# host is '' is before the first of its tenant, one whose host is null behind the last.
_PLACES = """
    WITH RECURSIVE place (tenant, host) AS (
        SELECT MIN(tenant), '' FROM deliveries WHERE due_at IS NOT NULL
        UNION ALL
        SELECT
            CASE WHEN host IS NOT NULL THEN tenant ELSE (
                SELECT MIN(d.tenant) FROM deliveries AS d
                WHERE d.due_at IS NOT NULL AND d.tenant > place.tenant
            ) END,
            CASE WHEN host IS NULL THEN '' ELSE (
                SELECT MIN(d.host) FROM deliveries AS d
                WHERE d.due_at IS NOT NULL AND d.tenant = place.tenant AND d.host > place.host
            ) END
        FROM place WHERE tenant IS NOT NULL
    ), first (tenant, host, due_at) AS (
        SELECT tenant, host, (
            SELECT MIN(d.due_at) FROM deliveries AS d
            WHERE d.tenant = place.tenant AND d.host = place.host AND d.due_at IS NOT NULL
        )
        FROM place WHERE tenant IS NOT NULL AND host > ''
    )
    SELECT tenant, host FROM first WHERE due_at <= ? ORDER BY due_at
"""


class SqliteEndpointStore:
    """See the port `EndpointStore`. Reading awaits nothing."""

    def __init__(self, database: AccessDatabase) -> None:
        self._database = database

    async def create(self, endpoint: Endpoint) -> bool:
        """See the port."""
        row = (*_key(endpoint), endpoint.revision, endpoint_to_json(endpoint))
        return await self._changes("INSERT OR IGNORE INTO webhooks VALUES (?,?,?,?)", row)

    async def get(self, tenant: str, endpoint_id: str) -> Endpoint | None:
        """See the port."""
        query = "SELECT doc FROM webhooks WHERE tenant = ? AND id = ?"
        rows = self._database.rows(query, (tenant, endpoint_id))
        return endpoint_from_json(rows[0][0]) if rows else None

    async def of(self, tenant: str) -> Sequence[Endpoint]:
        """See the port."""
        query = "SELECT doc FROM webhooks WHERE tenant = ? ORDER BY id"
        return [endpoint_from_json(doc) for (doc,) in self._database.rows(query, (tenant,))]

    async def replace(self, endpoint: Endpoint) -> bool:
        """See the port."""
        query = (
            "UPDATE webhooks SET revision = ?, doc = ? WHERE tenant = ? AND id = ? AND revision = ?"
        )
        doc, before = endpoint_to_json(endpoint), endpoint.revision - 1
        return await self._changes(query, (endpoint.revision, doc, *_key(endpoint), before))

    async def delete(self, tenant: str, endpoint_id: str) -> bool:
        """See the port."""
        query = "DELETE FROM webhooks WHERE tenant = ? AND id = ?"
        return await self._changes(query, (tenant, endpoint_id))

    async def _changes(self, query: str, values: Sequence[object]) -> bool:
        return await self._database.write(
            lambda connection: connection.execute(query, values).rowcount == 1
        )


class SqliteDeliveryStore:
    """See the port `DeliveryStore`; also what the loop that makes the deliveries asks."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def add(self, deliveries: Sequence[Delivery]) -> Sequence[Delivery]:
        """See the port."""
        return await self._database.write(partial(_add, deliveries=deliveries))

    async def get(self, tenant: str, subject: str, delivery_id: str) -> Delivery | None:
        """See the port."""
        where = "id = ? AND tenant = ? AND subject = ?"
        found = await self._select(where, (delivery_id, tenant, subject))
        return found[0] if found else None

    async def of(self, tenant: str, subject: str) -> Sequence[Delivery]:
        """See the port."""
        return await self._select("subject = ? AND tenant = ? ORDER BY id", (subject, tenant))

    async def save(self, delivery: Delivery) -> bool:
        """See the port."""
        return await self._database.write(partial(_save, delivery=delivery))

    async def due(self, room: Room) -> Sequence[Delivery]:
        """Deliveries whose time has come, for which there is room.

        Tenants take turns; of each, the host that waits longest comes first.
        """
        return await self._database.read(partial(_due, now=self._clock(), room=room))

    async def purge(self) -> int:
        """Forget deliveries that ended long ago; returns how many."""
        purge = partial(_purge, before=self._clock() - RETENTION_S)
        purged = 0
        while count := await self._database.write(purge):
            purged += count
        return purged

    async def _select(self, where: str, values: Sequence[object]) -> list[Delivery]:
        query = f"SELECT doc FROM deliveries WHERE {where}"
        rows = await self._database.read(lambda db: db.execute(query, values).fetchall())
        return [delivery_from_json(doc) for (doc,) in rows]


class SqliteOutbox:
    """Jobs and file batches whose end nobody has been told of yet."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def untold(self, limit: int) -> Sequence[Event]:
        """What is to be told, the oldest first."""
        return await self._database.read(partial(_untold, limit=limit))

    async def told(self, events: Sequence[Event]) -> None:
        """Strike off what was told."""
        ids = json.dumps([event.subject for event in events])

        def strike(connection: sqlite3.Connection) -> None:
            for table in ("jobs", "file_batches"):
                connection.execute(
                    f"UPDATE {table} SET untold = 0 WHERE id IN (SELECT value FROM json_each(?))",
                    (ids,),
                )

        await self._database.write(strike)


def _key(endpoint: Endpoint) -> tuple[str, str]:
    return endpoint.tenant, endpoint.id


def _add(connection: sqlite3.Connection, deliveries: Sequence[Delivery]) -> list[Delivery]:
    connection.executemany(
        "INSERT OR IGNORE INTO deliveries"
        " (id, tenant, subject, host, attempts, due_at, created_at, doc) VALUES (?,?,?,?,?,?,?,?)",
        [
            (d.id, d.tenant, d.subject, d.host, d.attempts, d.due_at, d.created_at, _doc(d))
            for d in deliveries
        ],
    )
    ids = json.dumps([delivery.id for delivery in deliveries])
    rows = connection.execute(
        "SELECT doc FROM deliveries WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
        (ids,),
    )
    stand = [delivery_from_json(doc) for (doc,) in rows.fetchall()]
    return [delivery for delivery in stand if delivery.state is DeliveryState.PENDING]


def _save(connection: sqlite3.Connection, delivery: Delivery) -> bool:
    done = connection.execute(
        "UPDATE deliveries SET attempts = ?, due_at = ?, doc = ?"
        " WHERE id = ? AND attempts <= ? AND due_at IS NOT NULL",
        (delivery.attempts, delivery.due_at, _doc(delivery), delivery.id, delivery.attempts),
    )
    return done.rowcount == 1


def _due(connection: sqlite3.Connection, now: float, room: Room) -> list[Delivery]:
    hosts: dict[str, list[str]] = {}
    for tenant, host in connection.execute(_PLACES, (now,)).fetchall():
        hosts.setdefault(tenant, []).append(host)
    waiting = {
        tenant: _due_of(connection, now, room, tenant, its_own) for tenant, its_own in hosts.items()
    }
    found: list[Delivery] = []
    while (turn := room.next_of(waiting)) is not None:
        delivery = next(waiting[turn], None)
        if delivery is None:
            del waiting[turn]
        else:
            room.take(delivery)
            found.append(delivery)
    return found


def _due_of(
    connection: sqlite3.Connection, now: float, room: Room, tenant: str, hosts: Sequence[str]
) -> Iterator[Delivery]:
    """What a tenant may have made next; of no host is more read than there is room for."""
    going = json.dumps(room.under_way)
    for host in hosts:
        limit = room.at((tenant, host))
        if limit <= 0:
            continue
        rows = connection.execute(
            "SELECT doc FROM deliveries WHERE tenant = ? AND host = ? AND due_at <= ?"
            " AND id NOT IN (SELECT value FROM json_each(?)) ORDER BY due_at LIMIT ?",
            (tenant, host, now, going, limit),
        ).fetchall()
        yield from (delivery_from_json(doc) for (doc,) in rows)


def _untold(connection: sqlite3.Connection, limit: int) -> list[Event]:
    jobs = connection.execute(
        f"{SELECT_JOB} WHERE untold AND due_at IS NULL ORDER BY n LIMIT ?", (limit,)
    ).fetchall()
    batches = connection.execute(
        "SELECT doc FROM file_batches WHERE untold AND NOT is_open ORDER BY id LIMIT ?", (limit,)
    ).fetchall()
    events = [event_of_job(job_of(*row)) for row in jobs]
    return events + [event_of_batch(file_batch_from_json(doc)) for (doc,) in batches]


def _purge(connection: sqlite3.Connection, before: float) -> int:
    return connection.execute(
        "DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries"
        " WHERE created_at <= ? AND due_at IS NULL LIMIT ?)",
        (before, PURGED_AT_ONCE),
    ).rowcount


def _doc(delivery: Delivery) -> str:
    return delivery_to_json(delivery)
