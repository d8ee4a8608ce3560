"""A short soak under faults at random; `make chaos` runs longer ones, with seeds of their own."""

from __future__ import annotations

import random
import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.oracle import Accepted, Kind, Oracle, Violation
from tests.chaos.soak import soak

SEED = 11
SECONDS = 12.0


async def test_nothing_accepted_is_lost_or_ends_twice_under_faults(tmp_path: Path) -> None:
    said: list[str] = []
    soaked = await soak(tmp_path, SEED, SECONDS, say=said.append)

    assert soaked.faults.total() >= 4, said
    assert soaked.accepted == soaked.ends.total() > 50


def an_oracle(folder: Path, *states: str) -> Oracle:
    """One that has seen two jobs complete, over records of jobs in these states."""
    file = folder / "jobs.db"
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE jobs (state TEXT)")
        connection.execute("CREATE TABLE idempotency (key TEXT)")
        connection.executemany("INSERT INTO jobs VALUES (?)", [(state,) for state in states])
        connection.executemany("INSERT INTO idempotency VALUES (?)", [("1",), ("2",)])
    jobs = [Accepted(str(number), Kind.PLAIN, f"{number} one", 600.0) for number in (1, 2)]
    return Oracle("", file, random.Random(1), jobs, Counter({"COMPLETED": 2}))


@pytest.mark.parametrize(
    "states",
    [
        ["COMPLETED"],
        ["COMPLETED", "COMPLETED", "COMPLETED"],
        ["COMPLETED", "RUNNING"],
        ["COMPLETED", "FAILED"],
    ],
)
def test_the_oracle_sees_records_that_do_not_add_up(tmp_path: Path, states: list[str]) -> None:
    an_oracle(tmp_path, "COMPLETED", "COMPLETED")._records_add_up()
    (tmp_path / "jobs.db").unlink()
    with pytest.raises(Violation):
        an_oracle(tmp_path, *states)._records_add_up()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (Kind.PLAIN, {"status": "EXPIRED"}),
        (Kind.PLAIN, {"status": "COMPLETED", "result": {"text": "another's"}}),
        (Kind.PLAIN, {"status": "FAILED", "error": {"code": "engine_error"}}),
        (Kind.BRIEF, {"status": "CANCELLED"}),
    ],
)
def test_the_oracle_sees_wrong_ends(tmp_path: Path, kind: Kind, body: dict[str, object]) -> None:
    job = Accepted("1", kind, "1 one", 600.0)
    with pytest.raises(Violation):
        Oracle("", tmp_path, random.Random(1))._judge(job, body)
