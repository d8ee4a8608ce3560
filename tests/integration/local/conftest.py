"""A database in a folder of its own, and a store over it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from synapse.adapters.local.database import Database
from synapse.adapters.local.job_store import SqliteJobStore
from tests.fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "jobs.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    database = Database.open(path)
    yield database
    await database.close()


@pytest.fixture
async def store(database: Database, clock: FakeClock) -> AsyncIterator[SqliteJobStore]:
    store = SqliteJobStore(database, clock)
    yield store
    await store.aclose()
