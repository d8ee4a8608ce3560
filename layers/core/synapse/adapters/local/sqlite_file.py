"""What every SQLite file of ours does alike: bringing its schema up to date, and transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from synapse.adapters.local.failures import StorageError

T = TypeVar("T")

Steps = Sequence[Sequence[str]]
"""Step i takes a database from `user_version` i to i + 1."""


def migrate(connection: sqlite3.Connection, path: Path, application_id: int, steps: Steps) -> None:
    """Bring the schema up to date; `application_id` marks the file as ours.

    Raises:
        StorageError: the file is another program's, or a newer Synapse's.
    """
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    owner = int(connection.execute("PRAGMA application_id").fetchone()[0])
    is_empty = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if owner != application_id and not is_empty:
        raise StorageError(f"{path}: another program's database: choose another folder")
    if version > len(steps):
        raise StorageError(
            f"{path}: written by a newer Synapse (schema {version}, this one knows "
            f"{len(steps)}): upgrade Synapse, or choose another folder"
        )
    if version == len(steps):
        return
    connection.execute("BEGIN IMMEDIATE")
    for step in steps[version:]:
        for statement in step:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {application_id}")
    connection.execute(f"PRAGMA user_version = {len(steps)}")
    connection.execute("COMMIT")


def transact(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """Run `work` in a transaction of its own, or undo what it did."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        # SQLite may have rolled back by itself, as it does when the disk is full.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result
