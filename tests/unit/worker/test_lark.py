"""Terminals that are written out in one another."""

import pytest

from synapse_worker.errors import InvalidRequest
from synapse_worker.lark import TOKEN, check_terminals


def doubling(depth: int, last: str, line: str = "{}: {} {}") -> str:
    lines = [line.format(f"A{i}", f"A{i + 1}", f"A{i + 1}") for i in range(depth)]
    return "\n".join(["%llguidance {}", "start: A0", *lines, f"A{depth}: {last}"])


@pytest.mark.parametrize(
    "grammar",
    [
        doubling(12, "/.*/"),
        doubling(12, '"a"?'),
        doubling(60, '""'),
        doubling(12, "/.*/", "{}.2: {} {}"),
        doubling(12, "/.*/", '{}: "B:" {} <"> {}'),
        doubling(12, "/.*/", '{}: /B\\/:/ {} // B: "\n  | {}'),
        doubling(12, "/.*/", '{}: %regex {{"substring_chars": "a"}} {} {}'),
        doubling(12, "/.*/").replace("\n", " -> x "),
        "start: A\nA: B\nB: A",
        "start: A\nA: A A",
    ],
)
def test_terminals_that_come_to_too_much_are_refused(grammar: str) -> None:
    with pytest.raises(InvalidRequest, match="terminal"):
        check_terminals(grammar)


@pytest.mark.parametrize(
    "grammar",
    [
        doubling(6, "/a+/"),
        doubling(60, "/a*/").replace("A", "a"),
        'NAME: /[a-z]+/\nstart[stop="\\n", max_tokens=5]: NAME "," NAME\nother: NAME*',
        '%import common.INT\nstart: INT ("+" INT)*\nINT: DIGIT+\nDIGIT: /[0-9]/',
        "start: A B\nA: B B\nA: B\nB: C? D\nC: /c/\nD: /d/i",
    ],
)
def test_terminals_as_people_write_them_are_let_through(grammar: str) -> None:
    check_terminals(grammar)


@pytest.mark.parametrize(
    "run", ["_" * 99, "!" * 99, '"' + '\\"' * 99, "/" + "\\/" * 99, "_" * 99 + "1"]
)
def test_what_does_not_end_is_taken_as_a_whole_and_not_again_from_each_of_its_characters(
    run: str,
) -> None:
    found = list(TOKEN.finditer(run))

    assert [each.start() for each in found] == [0]
    check_terminals(f"start: A\nA: {run}")
