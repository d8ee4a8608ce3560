"""What `synapse serve` does for itself before it serves."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from synapse_server.pauses import spare_pauses


@pytest.fixture(autouse=True)
def collector_as_it_was() -> Iterator[None]:
    """But for what is frozen: that holds all the tests as well (`tests/conftest.py`)."""
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)


class Node:
    """Something that the collector tracks."""


def test_what_the_start_has_made_is_not_looked_through_again() -> None:
    made = Node()
    assert any(each is made for each in gc.get_objects())

    spare_pauses()

    assert not any(each is made for each in gc.get_objects())


def test_what_is_made_later_is_still_collected() -> None:
    spare_pauses()
    later = Node()

    assert any(each is later for each in gc.get_objects())
    assert gc.isenabled()
