"""Keys and tenants of one machine: rows of access.db."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from synapse.adapters.key_records import (
    key_from_json,
    key_to_json,
    tenant_from_json,
    tenant_to_json,
)
from synapse.adapters.local.access_database import AccessDatabase
from synapse.domain.access import Tenant
from synapse.domain.api_key import ApiKey


class SqliteKeyStore:
    """See the port `KeyStore`. Reading awaits nothing."""

    def __init__(self, database: AccessDatabase) -> None:
        self._database = database

    def is_empty(self) -> bool:
        """Whether there has never been a key.

        Raises:
            Unavailable: the database cannot be read at present.
        """
        return not self._database.rows("SELECT 1 FROM keys LIMIT 1")

    async def create(self, key: ApiKey) -> None:
        """See the port."""
        row = (key.id, key.tenant, key.revision, key_to_json(key))
        try:
            await self._database.write(
                lambda connection: connection.execute("INSERT INTO keys VALUES (?,?,?,?)", row)
            )
        except sqlite3.IntegrityError as error:
            raise ValueError(f"there is a key {key.id!r} already") from error

    async def get(self, key_id: str) -> ApiKey | None:
        """See the port."""
        rows = self._database.rows("SELECT doc FROM keys WHERE id = ?", (key_id,))
        return key_from_json(rows[0][0]) if rows else None

    async def keys(self, tenant: str) -> Sequence[ApiKey]:
        """See the port."""
        query = "SELECT doc FROM keys WHERE tenant = ? ORDER BY id"
        return [key_from_json(doc) for (doc,) in self._database.rows(query, (tenant,))]

    async def replace(self, key: ApiKey) -> bool:
        """See the port."""
        row = (key.revision, key_to_json(key), key.id, key.revision - 1)

        def update(connection: sqlite3.Connection) -> bool:
            query = "UPDATE keys SET revision = ?, doc = ? WHERE id = ? AND revision = ?"
            return connection.execute(query, row).rowcount == 1

        return await self._database.write(update)

    async def tenant(self, name: str) -> Tenant:
        """See the port."""
        rows = self._database.rows("SELECT doc FROM tenants WHERE name = ?", (name,))
        return tenant_from_json(rows[0][0]) if rows else Tenant(name)

    async def tenants(self) -> Sequence[Tenant]:
        """See the port."""
        rows = self._database.rows("SELECT doc FROM tenants ORDER BY name")
        return [tenant_from_json(doc) for (doc,) in rows]

    async def describe(self, tenant: Tenant) -> None:
        """See the port."""
        row = (tenant.name, tenant_to_json(tenant))
        await self._database.write(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO tenants VALUES (?,?)", row
            )
        )
