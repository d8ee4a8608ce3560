"""A ward of two workers over sockets in a folder of their own."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.integration.fleet.sick_workers import Ward, a_ward


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder with a short name: that of a unix socket holds 107 characters."""
    with tempfile.TemporaryDirectory(prefix="sy-") as name:
        yield Path(name)


@pytest.fixture
async def ward(sockets: Path) -> AsyncIterator[Ward]:
    async with a_ward(sockets) as made:
        yield made
