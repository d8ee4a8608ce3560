"""A process that opens access.db and writes keys to it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from synapse.adapters.local.access_database import AccessDatabase
from synapse.adapters.local.keys import SqliteKeyStore
from synapse.domain.api_key import ApiKey


def write_keys(path: Path, name: str, count: int) -> None:
    """Write that many keys, one after the other."""
    asyncio.run(_write(path, name, count))


async def _write(path: Path, name: str, count: int) -> None:
    database = AccessDatabase.open(path)
    store = SqliteKeyStore(database)
    for number in range(count):
        await store.create(ApiKey(f"{name}{number:05d}", "default", name, "0" * 64, 1.0))
    await database.close()
