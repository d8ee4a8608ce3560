"""access.db between processes: the server reads it while the command writes."""

from __future__ import annotations

import multiprocessing
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from synapse.adapters.local.access_database import MIGRATIONS, AccessDatabase
from synapse.adapters.local.failures import StorageError
from synapse.adapters.local.keys import SqliteKeyStore
from synapse.domain.api_key import ApiKey
from tests.integration.local.access_writer import write_keys

KEY = ApiKey("a00000000001", "default", "a laptop", "0" * 64, 1.0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "access.db"


async def test_processes_that_make_the_file_at_the_same_time_all_write_to_it(path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    writers = [
        spawn.Process(target=write_keys, args=(path, f"writer{number}", 20)) for number in range(3)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)

    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    database = AccessDatabase.open(path)
    kept = await SqliteKeyStore(database).keys("default")
    assert len(kept) == 60
    await database.close()


async def test_what_another_one_revokes_is_seen_at_once(path: Path) -> None:
    server, command = AccessDatabase.open(path), AccessDatabase.open(path)
    await SqliteKeyStore(command).create(KEY)
    assert await SqliteKeyStore(server).get(KEY.id) == KEY
    revoked = replace(KEY, revoked_at=2.0, revision=1)

    await SqliteKeyStore(command).replace(revoked)

    assert await SqliteKeyStore(server).get(KEY.id) == revoked
    await command.close()
    await server.close()


async def test_reading_does_not_wait_for_a_writer(path: Path) -> None:
    server, command = AccessDatabase.open(path), AccessDatabase.open(path)
    await SqliteKeyStore(command).create(KEY)
    read: list[object] = []

    def in_the_middle(connection: object) -> None:
        # To wait for the writer here would be to wait in vain: it would be an error.
        read.extend(server.rows("SELECT count(*) FROM keys"))

    await command.write(in_the_middle)

    assert read == [(1,)]
    await command.close()
    await server.close()


async def test_only_its_owner_may_read_it(path: Path) -> None:
    database = AccessDatabase.open(path)
    await SqliteKeyStore(database).create(KEY)

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    assert {name: mode for name, mode in modes.items() if name != "access.db.lock"} == {
        "access.db": 0o600,
        "access.db-wal": 0o600,
        "access.db-shm": 0o600,
    }
    await database.close()


def test_a_file_of_another_program_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database at all, but long enough to look at" * 10)

    with pytest.raises(StorageError, match=r"access\.db: .*move the file away"):
        AccessDatabase.open(path)


async def test_a_newer_synapse_s_file_is_left_alone(path: Path) -> None:
    database = AccessDatabase.open(path)
    newer = len(MIGRATIONS) + 1
    await database.write(lambda connection: connection.execute(f"PRAGMA user_version = {newer}"))
    await database.close()

    with pytest.raises(StorageError, match="newer Synapse"):
        AccessDatabase.open(path)
