"""`events/`: the same files for `sam local invoke`, the tests and the documentation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.infra.translation import ROOT

EVENTS = sorted((ROOT / "events").iterdir())
FUNCTIONS = sorted(path.parent.name for path in (ROOT / "functions").glob("*/handler.py"))


@pytest.mark.parametrize("event", EVENTS, ids=lambda path: path.name)
def test_an_event_is_json_and_named_after_its_function_and_case(event: Path) -> None:
    function, case, suffix = event.name.split(".")

    assert function in FUNCTIONS
    assert case
    assert suffix == "json"
    assert isinstance(json.loads(event.read_text()), dict)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_each_function_has_an_event(function: str) -> None:
    assert list((ROOT / "events").glob(f"{function}.*.json"))
