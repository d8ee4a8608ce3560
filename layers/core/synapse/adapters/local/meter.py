"""The meters of one machine: decided in memory at once, written to SQLite behind."""

from __future__ import annotations

import asyncio
import logging
import math
import sqlite3
import threading
from dataclasses import dataclass, field
from typing import Self

from synapse.adapters.local.database import Database
from synapse.adapters.reservation_records import reservation_from_json, reservation_to_json
from synapse.domain.errors import Unavailable
from synapse.domain.limiting import Verdict
from synapse.domain.meter_ledger import MeterLedger
from synapse.domain.metering import Bounds, Counts, MeterId, Reservation, ReservationId, Used

logger = logging.getLogger(__name__)

RETRY_LATER_S = 1.0
TELL_EVERY_S = 10.0


class SqliteMeter:
    """See the port `Meter`; use `SqliteMeter.open`. Deciding awaits nothing.

    A reservation is handed to the database before its request goes on, and the database writes in
    the order in which it is handed things: a job that is recorded has its reservation recorded.
    Requests on the line end with their process: of theirs only the counts are kept.
    """

    def __init__(self, database: Database, ledger: MeterLedger) -> None:
        """Made by `open`."""
        self._database = database
        self._ledger = ledger
        self._lock = threading.Lock()
        self._unwritten = _Rows()
        self._is_queued = False
        self._last_write: asyncio.Future[None] | None = None
        self._retry: asyncio.TimerHandle | None = None
        self._told_at = -math.inf

    @classmethod
    async def open(cls, database: Database) -> Self:
        """The meters as the last process left them, with the reservations of its jobs open.

        Raises:
            Unavailable: the database cannot be read.
        """
        return cls(database, await database.read(_select))

    def left_open(self) -> list[Reservation]:
        """What is reserved now; right after `open`, by jobs of the process before this one."""
        return self._ledger.open()

    async def reserve(self, asked: Reservation, bounds: Bounds) -> Verdict:
        """See the port."""
        verdict = self._ledger.reserve(asked, bounds)
        if verdict.refusal is not None and verdict.refusal.is_held:
            expired = self._ledger.expire(asked.at)
            for reservation in expired:
                self._changed(reservation, None)
            if expired:
                verdict = self._ledger.reserve(asked, bounds)
        if verdict.is_new:
            self._changed(asked, asked)
        return verdict

    async def settle(self, reservation_id: ReservationId, used: Used | None) -> None:
        """See the port."""
        reservation = self._ledger.settle(reservation_id, used)
        if reservation is not None:
            self._changed(reservation, None)

    async def aclose(self) -> None:
        """Wait until everything is written. The database stays open: its opener closes it."""
        if self._last_write is not None:
            await asyncio.wait([self._last_write])

    def _changed(self, reservation: Reservation, now_is: Reservation | None) -> None:
        if self._retry is not None:
            self._write_everything()
            return
        with self._lock:
            for meter in reservation.meters:
                self._unwritten.meters[meter] = self._ledger.counts(meter)
            if reservation.is_job:
                self._unwritten.reservations[reservation.id] = now_is
        self._hand_over()

    def _hand_over(self) -> None:
        """Queue one write of all that is unwritten when its turn comes, unless one is queued."""
        if self._is_queued:
            return
        # Before it is handed over: the writer may have done it before we are back.
        self._is_queued = True
        try:
            write = self._database.hand_over(self._write)
        except Unavailable:
            self._is_queued = False
            logger.warning("meters not written: the server is stopping")
            return
        self._last_write = write
        write.add_done_callback(self._written)

    def _write(self, connection: sqlite3.Connection) -> None:
        """Write what is unwritten; in the database's thread."""
        with self._lock:
            rows, self._unwritten = self._unwritten, _Rows()
            self._is_queued = False
        _save(connection, rows)

    def _written(self, write: asyncio.Future[None]) -> None:
        if write.cancelled() or (error := write.exception()) is None:
            return
        # One that could not even begin (the database was locked) has taken no rows.
        self._is_queued = False
        loop = asyncio.get_running_loop()
        # A disk stays full for hours, and every request that ends tries.
        if loop.time() - self._told_at >= TELL_EVERY_S:
            self._told_at = loop.time()
            logger.warning("meters not written, tried again in %g s: %s", RETRY_LATER_S, error)
        if self._retry is None:
            self._retry = loop.call_later(RETRY_LATER_S, self._write_everything)

    def _write_everything(self) -> None:
        """After a failure nobody knows which rows are behind."""
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        everything = self._ledger
        with self._lock:
            self._unwritten = _Rows(
                {meter: everything.counts(meter) for meter in everything.meters()},
                {each.id: each for each in everything.open() if each.is_job},
                replaces_all=True,
            )
        self._hand_over()


@dataclass(slots=True)
class _Rows:
    """What is to be written; of reservations that are settled there is None."""

    meters: dict[MeterId, Counts] = field(default_factory=dict)
    reservations: dict[ReservationId, Reservation | None] = field(default_factory=dict)
    replaces_all: bool = False


def _save(connection: sqlite3.Connection, rows: _Rows) -> None:
    if rows.replaces_all:
        connection.execute("DELETE FROM reservations")
    connection.executemany(
        "INSERT OR REPLACE INTO meters VALUES (?,?,?,?,?,?,?)",
        [
            (*meter, c.minute, c.requests, c.tokens, c.month, c.nano_usd)
            for meter, c in rows.meters.items()
        ],
    )
    settled = [id for id, reservation in rows.reservations.items() if reservation is None]
    connection.executemany(
        "DELETE FROM reservations WHERE tenant = ? AND name = ? AND expires_at = ?", settled
    )
    connection.executemany(
        "INSERT OR REPLACE INTO reservations VALUES (?,?,?,?)",
        [(*each.id, reservation_to_json(each)) for each in rows.reservations.values() if each],
    )


def _select(connection: sqlite3.Connection) -> MeterLedger:
    meters = connection.execute("SELECT * FROM meters").fetchall()
    reservations = connection.execute("SELECT * FROM reservations").fetchall()
    return MeterLedger(
        {MeterId(*row[:2]): Counts(*row[2:]) for row in meters},
        [reservation_from_json(ReservationId(*row[:3]), row[3]) for row in reservations],
    )
