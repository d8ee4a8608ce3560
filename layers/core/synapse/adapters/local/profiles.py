"""Profiles of one machine: rows in SQLite, and a copy in memory that every request reads."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Self

from synapse.adapters.local.database import Database
from synapse.adapters.profile_records import profile_from_json, profile_to_json
from synapse.domain.profile import Profile

Key = tuple[str, str, str]


class SqliteProfileStore:
    """See the port `ProfileStore`; use `SqliteProfileStore.open`. Reading awaits nothing."""

    def __init__(self, database: Database, known: Sequence[Profile]) -> None:
        self._database = database
        self._known = {_key(profile): profile for profile in known}

    @classmethod
    async def open(cls, database: Database) -> Self:
        """The store with all that was kept before.

        Raises:
            Unavailable: the database cannot be read.
        """
        rows = await database.read(
            lambda connection: connection.execute("SELECT doc FROM profiles").fetchall()
        )
        return cls(database, [profile_from_json(doc) for (doc,) in rows])

    async def profile(self, model: str, version: str, pool: str) -> Profile | None:
        """See the port."""
        return self._known.get((model, version, pool))

    async def profiles(self) -> Sequence[Profile]:
        """See the port."""
        return [self._known[key] for key in sorted(self._known)]

    async def keep(self, profile: Profile) -> None:
        """See the port."""
        known = self._known.get(_key(profile))
        if known is not None and known.measured_at > profile.measured_at:
            return
        row = (*_key(profile), profile_to_json(profile))

        def replace(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR REPLACE INTO profiles VALUES (?,?,?,?)", row)

        await self._database.write(replace)
        self._known[_key(profile)] = profile


def _key(profile: Profile) -> Key:
    return profile.model, profile.version, profile.pool
