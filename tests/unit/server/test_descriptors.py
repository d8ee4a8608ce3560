"""Open files: as many as there may be, and some that no connection takes."""

from __future__ import annotations

import resource

import pytest

from synapse_server.descriptors import (
    MOST_FILES,
    RESERVED,
    allow_many_files,
    most_connections,
)

NO_LIMIT = resource.RLIM_INFINITY


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[int, int]]:
    kept: dict[int, tuple[int, int]] = {}
    monkeypatch.setattr(resource, "getrlimit", kept.__getitem__)
    monkeypatch.setattr(resource, "setrlimit", kept.__setitem__)
    return kept


@pytest.mark.parametrize(
    ("soft", "hard", "after"),
    [
        (1024, 20_000, 20_000),
        (1024, 1_048_576, MOST_FILES),
        (1024, NO_LIMIT, MOST_FILES),
        (256, 256, 256),
        (100_000, 1_048_576, 100_000),
        (NO_LIMIT, NO_LIMIT, NO_LIMIT),
    ],
)
def test_the_limit_is_raised_as_far_as_it_may_be_and_never_lowered(
    limits: dict[int, tuple[int, int]], soft: int, hard: int, after: int
) -> None:
    limits[resource.RLIMIT_NOFILE] = (soft, hard)

    allow_many_files()

    assert limits[resource.RLIMIT_NOFILE] == (after, hard)


@pytest.mark.parametrize(
    ("soft", "most"), [(1024, 1024 - RESERVED), (128, 32), (NO_LIMIT, MOST_FILES)]
)
def test_connections_leave_some_for_everything_else(
    limits: dict[int, tuple[int, int]], soft: int, most: int
) -> None:
    limits[resource.RLIMIT_NOFILE] = (soft, NO_LIMIT)

    assert most_connections() == most
