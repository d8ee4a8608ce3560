"""Calls of tools are read alike however the text comes, and nothing of their form leaks."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.api.openai.calls import (
    CLOSE,
    OPEN,
    ArgumentsReader,
    CallPart,
    CallReader,
    Content,
    HermesReader,
    OneCallReader,
    Part,
)
from synapse.api.openai.rendering import gathered


def read(reader: CallReader, pieces: Sequence[str]) -> list[Part]:
    parts: list[Part] = []
    for piece in pieces:
        parts += reader.feed(piece)
    return [*parts, *reader.finish()]


def hermes(text: str) -> tuple[str | None, list[tuple[str, str]]]:
    return gathered(read(HermesReader(), [text]))


def call(name: str, arguments: object) -> str:
    return OPEN + json.dumps({"name": name, "arguments": arguments}) + CLOSE


def test_text_without_calls_is_content_to_the_last_space() -> None:
    assert hermes("  Hello,\n<b>you</b> < \n") == ("  Hello,\n<b>you</b> < \n", [])


def test_calls_are_told_apart_from_the_text_before_them() -> None:
    text = "Let me see.\n" + call("weather", {"city": "Köln"}) + "\n" + call("time", {}) + "\n"

    assert hermes(text) == ("Let me see.", [("weather", '{"city": "K\\u00f6ln"}'), ("time", "{}")])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ('{"name": "f", "arguments": {"a": "}</tool_call>{"}}', ("f", '{"a": "}</tool_call>{"}')),
        ('{"name": "f", "arguments": {"a": "\\"}"}}', ("f", '{"a": "\\"}"}')),
        ('\n{"arguments": {"a": [1, {"b": 2}]}, "name": "f"}\n', ("f", '{"a": [1, {"b": 2}]}')),
        ('{"name": "f", "arguments": "{\\"a\\": 1}"}', ("f", '{"a": 1}')),
        ('{"name": "f", "parameters": {"a": 1}}', ("f", '{"a": 1}')),
        ('{"name": "f"}', ("f", "{}")),
        ('{"name": "ü f", "arguments": {}}', ("ü f", "{}")),
    ],
)
def test_a_call_is_understood_in_each_of_its_forms(body: str, expected: tuple[str, str]) -> None:
    assert hermes(OPEN + body + CLOSE) == (None, [expected])


HALF_A_PAIR = r'{"arguments": {"a": "\ud83d"}, "name": "f"}'
"""JSON that Python reads, and that nothing can be sent of once it is read."""


@pytest.mark.parametrize(
    "body", ["", "no JSON", "[1]", '{"arguments": {}}', '{"name": 3}', HALF_A_PAIR]
)
def test_what_is_no_call_stays_text(body: str) -> None:
    text = f"See: {OPEN}{body}{CLOSE} and on"

    assert hermes(text) == (text, [])


def test_a_call_that_was_cut_off_gives_what_there_is() -> None:
    assert hermes(OPEN + '{"name": "f", "arguments": {"a": 1') == (None, [("f", '{"a": 1')])
    assert hermes(OPEN + '{"name": "f"}') == (None, [("f", "{}")])
    assert hermes("Well " + OPEN + '{"na') == ("Well " + OPEN + '{"na', [])
    assert hermes("Well <tool") == ("Well <tool", [])


def test_a_call_that_is_never_closed_does_not_swallow_the_next() -> None:
    text = OPEN + '{"name": "f", "arguments": {"a": 1}' + call("g", {})

    assert hermes(text) == (None, [("f", '{"a": 1}'), ("g", "{}")])


def test_a_call_is_told_before_it_is_complete() -> None:
    reader = HermesReader()

    assert reader.feed("Yes. <tool_c") == [Content("Yes.")]
    assert reader.feed('all>{"name": "f", "argu') == []
    assert reader.feed('ments": {"a') == [CallPart(0, "f"), CallPart(0, arguments='{"a')]
    assert reader.feed('": 1}') == [CallPart(0, arguments='": 1}')]
    assert reader.feed("}</tool_call>") == []


def test_the_one_call_that_was_required_needs_no_marks() -> None:
    text = '{"name": "f", "arguments": {"a": {"b": "}"}}}'

    assert gathered(read(OneCallReader(), [text])) == (None, [("f", '{"a": {"b": "}"}}')])
    assert gathered(read(OneCallReader(), ['{"na'])) == ('{"na', [])
    assert gathered(read(OneCallReader(), ['{"arguments": {}, "name": "f"}'])) == (
        None,
        [("f", "{}")],
    )


def test_a_named_function_is_given_all_that_is_written() -> None:
    parts = read(ArgumentsReader("f"), ['{"a"', ": 1}"])

    assert parts == [CallPart(0, "f", '{"a"'), CallPart(0, None, ": 1}")]


FRAGMENTS = st.sampled_from(
    [
        *(OPEN, CLOSE, "<tool", "_call>", "</", "<", " ", "\n", "text", "ü", '"', "\\", "{", "}"),
        *('{"name": "f", "arguments": {', '{"name": "f"', '"a": 1', ', "arguments": ', "[]"),
        *(call("f", {"a": "<b>"}), call("g", {}), '{"arguments": {}, "name": "h"}'),
    ]
)
READERS: list[Callable[[], CallReader]] = [
    HermesReader,
    OneCallReader,
    lambda: ArgumentsReader("f"),
]


@given(fragments=st.lists(FRAGMENTS, max_size=12), cuts=st.lists(st.integers(0, 200), max_size=12))
@pytest.mark.parametrize("new_reader", READERS)
def test_where_the_pieces_end_makes_no_difference(
    new_reader: Callable[[], CallReader], fragments: list[str], cuts: list[int]
) -> None:
    text = "".join(fragments)
    ends = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    pieces = [text[start:end] for start, end in itertools.pairwise(ends)]

    whole = gathered(read(new_reader(), [text]))

    assert gathered(read(new_reader(), pieces)) == whole
    assert gathered(read(new_reader(), list(text))) == whole


@given(fragments=st.lists(FRAGMENTS, max_size=12))
def test_nothing_is_said_that_the_model_did_not_write(fragments: list[str]) -> None:
    text = "".join(fragments)

    content, calls = hermes(text)

    rest = text
    for piece in content or "":
        rest = rest[rest.index(piece) + 1 :]
    assert all(name in text for name, _ in calls)
    if OPEN not in text:
        assert (content, calls) == (text, [])
