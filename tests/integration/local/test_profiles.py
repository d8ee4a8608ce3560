"""SqliteProfileStore: what was kept is there after a restart."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from synapse.adapters.local.database import Database
from synapse.adapters.local.profiles import SqliteProfileStore
from synapse.domain.errors import Unavailable
from tests.contract.test_profile_store import FULL, PLAIN


async def test_profiles_outlive_the_process(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "jobs.db")
    store = await SqliteProfileStore.open(database)
    await store.keep(PLAIN)
    await store.keep(FULL)
    await database.close()

    again = Database.open(tmp_path / "jobs.db")
    assert list(await (await SqliteProfileStore.open(again)).profiles()) == [PLAIN, FULL]
    await again.close()


async def test_what_a_newer_version_wrote_besides_is_passed_over(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "jobs.db")
    await (await SqliteProfileStore.open(database)).keep(PLAIN)

    def add(connection: sqlite3.Connection) -> None:
        connection.execute("UPDATE profiles SET doc = json_set(doc, '$.colour', 'blue')")

    await database.write(add)
    store = await SqliteProfileStore.open(database)

    assert await store.profile("echo", "1", "cpu") == PLAIN
    await database.close()


async def test_what_could_not_be_written_is_not_known_either(tmp_path: Path) -> None:
    database = Database.open(tmp_path / "jobs.db")
    store = await SqliteProfileStore.open(database)
    await database.close()

    with pytest.raises(Unavailable):
        await store.keep(PLAIN)
    assert await store.profile("echo", "1", "cpu") is None
