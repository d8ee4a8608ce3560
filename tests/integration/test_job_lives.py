"""Whole lives of jobs at random, over the adapters of both targets."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import pytest

from synapse.adapters.local import group_commit
from synapse.adapters.local.usage import count_jobs
from synapse.domain.job import Job
from tests.lives.deployments import DEPLOYMENTS
from tests.lives.living import live

LIVES = {"aws": 5, "sqlite": 20}
"""What takes some seconds; `make chaos ARGS="--lives 500"` takes its time."""


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_every_job_ends_once_and_is_counted_once_whatever_happens(name: str) -> None:
    live(name, LIVES[name])


def test_a_count_that_is_one_too_high_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(connection: sqlite3.Connection, ended: Sequence[Job]) -> None:
        count_jobs(connection, ended)
        count_jobs(connection, ended[:1])

    monkeypatch.setattr(group_commit, "count_jobs", twice)
    with pytest.raises(AssertionError, match="counted"):
        live("sqlite", 20, shorten=False)
