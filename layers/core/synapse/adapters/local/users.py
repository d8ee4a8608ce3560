"""Users of one machine: rows of access.db."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from synapse.adapters.local.access_database import AccessDatabase
from synapse.adapters.principal_records import rights_from, rights_record
from synapse.domain.user import User


class SqliteUserStore:
    """See the port `UserStore`. Reading awaits nothing."""

    def __init__(self, database: AccessDatabase) -> None:
        self._database = database

    async def create(self, user: User) -> None:
        """See the port."""
        row = (user.name, user.revision, _to_json(user))
        try:
            await self._database.write(
                lambda connection: connection.execute("INSERT INTO users VALUES (?,?,?)", row)
            )
        except sqlite3.IntegrityError as error:
            raise ValueError(f"there is a user {user.name!r} already") from error

    async def get(self, name: str) -> User | None:
        """See the port."""
        rows = self._database.rows("SELECT doc FROM users WHERE name = ?", (name,))
        return _from_json(rows[0][0]) if rows else None

    async def users(self) -> Sequence[User]:
        """See the port."""
        rows = self._database.rows("SELECT doc FROM users ORDER BY name")
        return [_from_json(doc) for (doc,) in rows]

    async def replace(self, user: User) -> bool:
        """See the port."""
        row = (user.revision, _to_json(user), user.name, user.revision - 1)

        def update(connection: sqlite3.Connection) -> bool:
            query = "UPDATE users SET revision = ?, doc = ? WHERE name = ? AND revision = ?"
            return connection.execute(query, row).rowcount == 1

        return await self._database.write(update)


def _to_json(user: User) -> str:
    record = {**asdict(user), **rights_record(user)}
    return json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def _from_json(text: str) -> User:
    record: dict[str, Any] = json.loads(text)
    return User(**{**record, **rights_from(record)})
