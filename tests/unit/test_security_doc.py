"""docs/security.md: every threat has a test, and every test that it names is there."""

from __future__ import annotations

import re

import pytest

from tests.infra.translation import ROOT

TEXT = (ROOT / "docs" / "security.md").read_text()
ROWS = [line for line in TEXT.splitlines() if re.match(r"\| [STRIDE] \| ", line)]
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)`", TEXT)))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[4:60])
def test_a_threat_has_what_stands_against_it_and_a_test(row: str) -> None:
    _, threat, mitigation, shown_by = row.strip("| ").split(" | ")

    assert threat
    assert mitigation
    assert re.search(r"`tests/[\w/]+\.py`", shown_by)


def test_every_kind_of_threat_is_thought_of() -> None:
    assert {row[2] for row in ROWS} == set("STRIDE")


@pytest.mark.parametrize("path", TESTS)
def test_a_test_that_is_named_is_there(path: str) -> None:
    assert "def test_" in (ROOT / path).read_text() or "TestCase" in (ROOT / path).read_text()
