"""Database: one process a folder, clear refusals, one writer, readers beside it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from synapse.adapters.local import database as database_module
from synapse.adapters.local import schema
from synapse.adapters.local.database import Database
from synapse.adapters.local.failures import StorageError
from synapse.adapters.local.schema import MIGRATIONS
from synapse.domain.errors import Unavailable
from tests.integration.local.disk import BIG, full


def rows(connection: sqlite3.Connection) -> list[str]:
    return [model for (model,) in connection.execute("SELECT model FROM service_rates").fetchall()]


def tables(connection: sqlite3.Connection) -> set[str]:
    names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {name for (name,) in names}


def schema_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def insert(connection: sqlite3.Connection, model: str = "echo") -> None:
    connection.execute(
        "INSERT INTO service_rates (model, items, busy_s) VALUES (?, 1, 1.0)", (model,)
    )


def refusal(path: Path) -> str:
    """The one line with which opening is refused."""
    with pytest.raises(StorageError) as refused:
        Database.open(path)
    message = str(refused.value)
    assert "\n" not in message
    return message


async def test_what_was_written_is_there_after_a_restart(path: Path) -> None:
    first = Database.open(path)
    await first.write(insert)
    await first.close()

    second = Database.open(path)
    assert await second.read(rows) == ["echo"]
    await second.close()


async def test_the_settings_that_durability_rests_on(database: Database) -> None:
    def settings(connection: sqlite3.Connection) -> list[object]:
        names = ["journal_mode", "synchronous"]
        return [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in names]

    assert await database.write(settings) == ["wal", 2]


async def test_others_cannot_look_into_the_data_folder(database: Database, path: Path) -> None:
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_prompts_are_their_owners_alone_in_a_folder_that_is_everybodys(path: Path) -> None:
    """One that was made before the first start may be open to others."""
    path.parent.mkdir(mode=0o755, exist_ok=True)
    path.parent.chmod(0o755)

    database = Database.open(path)
    await database.write(insert)

    found = [path.with_name(path.name + end) for end in ("", "-wal", "-shm")]
    assert [stat.S_IMODE(each.stat().st_mode) for each in found] == [0o600] * 3
    await database.close()
    path.chmod(0o640)  # whoever lets a group read it has it stay so
    await Database.open(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


async def test_a_second_process_is_refused_and_told_who_has_the_folder(
    database: Database, path: Path
) -> None:
    program = f"""
from pathlib import Path
from synapse.adapters.local.database import Database
from synapse.adapters.local.failures import StorageError
try:
    Database.open(Path({str(path)!r}))
except StorageError as error:
    print(error)
"""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    child = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program], env=environ, capture_output=True, text=True
    )

    assert f"in use by process {os.getpid()}" in child.stdout, child.stderr


async def test_the_folder_is_free_again_after_closing(path: Path) -> None:
    for _ in range(3):
        await Database.open(path).close()


def test_a_database_of_a_newer_version_is_left_alone(path: Path) -> None:
    asyncio.run(Database.open(path).close())
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")

    assert "newer Synapse" in refusal(path)


@pytest.mark.parametrize("version", range(len(MIGRATIONS)))
async def test_a_database_of_an_older_version_keeps_its_rows_and_gains_tables(
    path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    if version:
        with monkeypatch.context() as patch:
            patch.setattr(schema, "MIGRATIONS", MIGRATIONS[:version])
            older = Database.open(path)
        assert await older.read(schema_version) == version
        await older.write(insert)
        await older.close()

    newer = Database.open(path)

    assert await newer.read(rows) == ["echo"] * bool(version)
    assert await newer.read(tables) >= {"jobs", "files", "uploads", "upload_parts"}
    await newer.close()


def test_another_programs_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (value)")

    assert "another program's" in refusal(path)


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database, but long enough to be taken for one " * 100)

    assert "not a database" in refusal(path)
    assert path.read_bytes().startswith(b"not a database")


def test_a_file_in_the_folders_place_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert "is a file" in refusal(tmp_path / "file" / "jobs.db")


def test_a_refused_folder_can_be_opened_once_it_is_mended(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 1000)
    refusal(path)
    path.unlink()

    asyncio.run(Database.open(path).close())


async def test_another_programs_lock_makes_writes_unavailable_until_it_is_gone(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await database.write(lambda connection: connection.execute("PRAGMA busy_timeout = 50"))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="another program has locked it"):
            await database.write(insert)
        assert await database.read(rows) == []
        other.execute("ROLLBACK")

    await database.write(insert)
    assert await database.read(rows) == ["echo"]


async def test_a_full_disk_is_its_trouble_until_something_could_be_written(
    database: Database,
) -> None:
    async def big() -> None:
        await database.write(partial(insert, model=BIG))

    assert database.last_trouble() == ""
    async with full(database):
        with pytest.raises(Unavailable):
            await big()
        await database.write(rows)  # That wrote nothing.
        assert database.last_trouble() == "storage: jobs.db: the disk is full: free some space"

    await database.write(rows)
    assert database.last_trouble() != ""
    await database.try_again()
    assert database.last_trouble() == ""


async def test_what_was_written_proves_that_the_trouble_is_over(database: Database) -> None:
    async with full(database):
        with pytest.raises(Unavailable):
            await database.write(partial(insert, model=BIG))
    await database.write(insert)

    assert database.last_trouble() == ""


async def test_damage_makes_reads_unavailable_and_says_so(path: Path) -> None:
    await Database.open(path).close()
    whole = path.stat().st_size  # the schema is in front
    first = Database.open(path)
    for number in range(200):
        await first.write(partial(insert, model=f"{number:0>500}"))
    await first.close()
    content = path.read_bytes()
    path.write_bytes(content[:whole] + b"\xff" * (len(content) - whole))

    second = Database.open(path)
    with pytest.raises(Unavailable, match="damaged"):
        await second.read(rows)
    await second.close()


async def test_a_copy_made_as_documented_is_whole_though_it_is_written_meanwhile(
    database: Database, path: Path, tmp_path: Path
) -> None:
    for number in range(200):
        await database.write(partial(insert, model=f"{number:0>5000}"))
    copy = tmp_path / "copy.db"

    async def go_on() -> None:
        for number in range(1000, 1200):
            await database.write(partial(insert, model=str(number)))

    copying = asyncio.to_thread(copied, path, copy)
    await asyncio.gather(copying, go_on())

    async def opened() -> list[str]:
        second = Database.open(copy)
        try:
            return await second.read(rows)
        finally:
            await second.close()

    kept = await opened()
    assert kept[:200] == [f"{number:0>5000}" for number in range(200)]
    assert kept[200:] == [str(number) for number in range(1000, 1000 + len(kept) - 200)]


def copied(path: Path, copy: Path) -> None:
    """As operations.md has it for `sqlite3`."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    connection.execute(f"VACUUM INTO '{copy}'")
    assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


async def test_a_failed_transaction_leaves_nothing_and_the_next_one_works(
    database: Database,
) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        insert(connection, "half")
        insert(connection, "half")

    with pytest.raises(sqlite3.IntegrityError):
        await database.write(fail)

    await database.write(insert)
    assert await database.read(rows) == ["echo"]


async def test_an_error_of_the_callers_own_reaches_the_caller(database: Database) -> None:
    def fail(connection: sqlite3.Connection) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError):
        await database.write(fail)
    await database.write(insert)


async def test_readers_cannot_write(database: Database) -> None:
    with pytest.raises(Unavailable):
        await database.read(insert)
    assert await database.read(rows) == []


async def test_the_log_does_not_grow_with_what_is_written(
    database: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "CHECKPOINT_BYTES", 256 * 1024)
    largest = 0
    for number in range(300):
        await database.write(partial(insert, model=f"{number:0>8000}"))
        largest = max(largest, path.with_name("jobs.db-wal").stat().st_size)

    assert largest < 1024 * 1024


async def test_after_closing_callers_are_told_so(path: Path) -> None:
    database = Database.open(path)
    await database.close()
    await database.close()

    with pytest.raises(Unavailable, match="stopping"):
        await database.write(insert)
    with pytest.raises(Unavailable, match="stopping"):
        await database.read(rows)
