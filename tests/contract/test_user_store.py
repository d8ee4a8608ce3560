"""UserStore: users found by their names, changed one after the other."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from synapse.adapters.local.access_database import AccessDatabase
from synapse.adapters.local.users import SqliteUserStore
from synapse.domain.access import ALL_SCOPES
from synapse.domain.job import SlaTier
from synapse.domain.user import User
from synapse.ports.users import UserStore
from tests.factories import NOW
from tests.fake_users import MemoryUserStore

ADA = User("ada", "$argon2id$…", NOW)
BOB = User(
    name="bob@example.com",
    password_hash="x",
    created_at=NOW + 0.123456,
    tenant="döner & co",
    scopes=ALL_SCOPES,
    models=frozenset({"echo", "smollm2"}),
    tiers=frozenset({SlaTier.SILVER, SlaTier.BRONZE}),
    is_disabled=True,
    generation=3,
    revision=7,
)
NOTHING_ALLOWED = replace(
    ADA, name="Carl", scopes=frozenset(), models=frozenset(), tiers=frozenset()
)


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[UserStore]:
    if request.param == "memory":
        yield MemoryUserStore()
        return
    database = AccessDatabase.open(tmp_path / "access.db")
    yield SqliteUserStore(database)
    await database.close()


async def test_there_is_nobody_of_an_unknown_name(store: UserStore) -> None:
    assert await store.get("ada") is None
    assert list(await store.users()) == []


async def test_a_user_comes_back_as_it_was_made(store: UserStore) -> None:
    for user in (ADA, BOB, NOTHING_ALLOWED):
        await store.create(user)

        assert await store.get(user.name) == user


async def test_a_name_is_taken_once_and_its_letters_case_counts(store: UserStore) -> None:
    await store.create(ADA)

    with pytest.raises(ValueError, match="ada"):
        await store.create(replace(ADA, tenant="another"))
    await store.create(replace(ADA, name="Ada"))

    assert await store.get("ada") == ADA


async def test_users_come_by_their_names(store: UserStore) -> None:
    for user in (BOB, ADA, NOTHING_ALLOWED):
        await store.create(user)

    assert list(await store.users()) == [NOTHING_ALLOWED, ADA, BOB]


async def test_a_changed_user_takes_the_place_of_the_revision_before(store: UserStore) -> None:
    disabled = replace(ADA, is_disabled=True, revision=1)
    await store.create(ADA)

    assert await store.replace(disabled)

    assert await store.get("ada") == disabled


async def test_a_change_that_came_too_late_or_for_nobody_is_refused(store: UserStore) -> None:
    await store.create(ADA)

    for revision in (0, 2):
        assert not await store.replace(replace(ADA, tenant="late", revision=revision))
    assert not await store.replace(replace(BOB, revision=BOB.revision + 1))

    assert list(await store.users()) == [ADA]


async def test_of_two_changes_at_once_one_is_written(store: UserStore) -> None:
    await store.create(ADA)

    changes = [replace(ADA, tenant=f"tenant-{n}", revision=1) for n in range(8)]
    written = await asyncio.gather(*map(store.replace, changes))

    assert sum(written) == 1
    assert await store.get("ada") == changes[written.index(True)]


async def test_what_another_process_changes_is_seen_at_once(tmp_path: Path) -> None:
    here, there = (AccessDatabase.open(tmp_path / "access.db") for _ in range(2))
    ours, theirs = SqliteUserStore(here), SqliteUserStore(there)
    await ours.create(ADA)
    assert await theirs.get("ada") == ADA

    await theirs.replace(replace(ADA, is_disabled=True, revision=1))

    seen = await ours.get("ada")
    assert seen is not None and seen.is_disabled
    await here.close()
    await there.close()


async def test_a_database_from_before_there_were_users_gets_their_table(tmp_path: Path) -> None:
    path = tmp_path / "access.db"
    await AccessDatabase.open(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE users")
        connection.execute("PRAGMA user_version = 2")
    connection.close()

    database = AccessDatabase.open(path)
    await SqliteUserStore(database).create(ADA)
    await database.close()
