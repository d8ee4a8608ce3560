"""How cores are shared out."""

from __future__ import annotations

import pytest

from synapse_worker import cores


@pytest.mark.parametrize(
    ("usable", "instances", "each"), [(16, 2, 8), (5, 2, 2), (2, 2, 1), (1, 2, 1), (3, 1, 3)]
)
def test_instances_share_the_cores_and_none_goes_without(
    monkeypatch: pytest.MonkeyPatch, usable: int, instances: int, each: int
) -> None:
    monkeypatch.setattr(cores, "usable_cores", lambda: usable)

    assert cores.cores_each(instances) == each
