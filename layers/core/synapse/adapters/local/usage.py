"""What was used on one machine: rows in the database of the jobs.

What a job used is counted by the transaction that writes its end, so exactly once. Of requests on
the line the sums since the last write are in memory, for half a second at most.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import astuple
from functools import partial

from synapse.adapters.local.database import Database
from synapse.domain.errors import Unavailable
from synapse.domain.job import Job
from synapse.domain.usage import UsageKey, Used, summed, used_by

logger = logging.getLogger(__name__)

WRITE_AFTER_S = 0.5
RETRY_AFTER_S = 5.0


def count_jobs(connection: sqlite3.Connection, ended: Iterable[Job]) -> None:
    """Count what jobs used that end in this transaction."""
    add_used(connection, summed(used_by(job) for job in ended))


def add_used(connection: sqlite3.Connection, sums: Mapping[UsageKey, Used]) -> None:
    """Add to what was used."""
    connection.executemany(
        "INSERT INTO usage VALUES (?,?,?,?,?,?,?,?,?,?,?)"
        " ON CONFLICT (tenant, day, account, model) DO UPDATE SET"
        " requests = requests + excluded.requests,"
        " errors = errors + excluded.errors,"
        " prompt_tokens = prompt_tokens + excluded.prompt_tokens,"
        " completion_tokens = completion_tokens + excluded.completion_tokens,"
        " cached_tokens = cached_tokens + excluded.cached_tokens,"
        " active = active + excluded.active,"
        " warm = warm + excluded.warm",
        [
            (key.tenant, key.day, key.account, key.model, *astuple(used))
            for key, used in sums.items()
        ],
    )


class SqliteUsageStore:
    """See the port `UsageStore`. Close it before the database, or the last sums are lost."""

    def __init__(self, database: Database, write_after_s: float = WRITE_AFTER_S) -> None:
        self._database = database
        self._write_after_s = write_after_s
        self._sums: dict[UsageKey, Used] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None

    async def add(self, key: UsageKey, used: Used) -> None:
        """See the port."""
        sums = self._sums
        sums[key] = sums[key] + used if key in sums else used
        self._write_in(self._write_after_s)

    async def used(self, tenant: str, first_day: str, last_day: str) -> Mapping[UsageKey, Used]:
        """See the port. Also what is not on the disk yet."""
        if self._writing is not None:
            await asyncio.wait({self._writing})
        await self._write()
        return await self._database.read(
            partial(_select, tenant=tenant, first_day=first_day, last_day=last_day)
        )

    async def aclose(self) -> None:
        """Write what was put off. The database stays open: its opener closes it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None:
            await self._writing
        with suppress(Unavailable):
            await self._write()

    def _write_in(self, delay_s: float) -> None:
        if self._timer is None and self._writing is None:
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._writing = asyncio.get_running_loop().create_task(self._write_now())

    async def _write_now(self) -> None:
        again_s = self._write_after_s
        try:
            await self._write()
        except Unavailable as error:
            logger.warning("usage not written yet: %s", error.message)
            again_s = RETRY_AFTER_S
        finally:
            self._writing = None
        if self._sums:
            self._write_in(again_s)

    async def _write(self) -> None:
        """Write the sums down; those that could not be are put off again."""
        sums, self._sums = self._sums, {}
        if not sums:
            return
        try:
            await self._database.write(partial(add_used, sums=sums))
        except Unavailable:
            self._sums = summed([*sums.items(), *self._sums.items()])
            raise


def _select(
    connection: sqlite3.Connection, tenant: str, first_day: str, last_day: str
) -> dict[UsageKey, Used]:
    rows = connection.execute(
        "SELECT account, model, day, requests, errors, prompt_tokens, completion_tokens,"
        " cached_tokens, active, warm FROM usage WHERE tenant = ? AND day BETWEEN ? AND ?",
        (tenant, first_day, last_day),
    )
    return {
        UsageKey(tenant, account, model, day): Used(*sums)
        for account, model, day, *sums in rows.fetchall()
    }
