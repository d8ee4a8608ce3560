"""Reading a file line by line."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncGenerator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.application.batch_lines import (
    SKIP_BYTES,
    BadLine,
    RawLine,
    envelope_of,
    look_through,
    read_at,
    read_lines,
)
from synapse.domain.file_batch import START, Cursor, OpenLine
from tests.unit.batches.batch_world import URL, a_line


async def pieces(data: bytes, size: int) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def read(data: bytes, size: int = 7, start: Cursor = START) -> list[RawLine]:
    return [line async for line in read_lines(pieces(data[start.offset :], size), start)]


TEXTS = st.lists(st.sampled_from([b"", b" ", b"a", b"bb", b"c" * 30, b"\r", b"\xff"]), max_size=12)


@given(TEXTS, st.integers(1, 40), st.booleans())
async def test_lines_are_the_same_however_the_file_comes(
    texts: Sequence[bytes], size: int, ends: bool
) -> None:
    data = b"\n".join(texts) + (b"\n" if ends else b"")

    lines = await read(data, size)

    numbered = [(number, text.strip()) for number, text in enumerate(texts, start=1)]
    assert [(line.place.number, line.text) for line in lines] == [
        (number, text) for number, text in numbered if text
    ]


@given(TEXTS, st.integers(1, 40))
async def test_reading_on_from_any_line_gives_the_rest(texts: Sequence[bytes], size: int) -> None:
    data = b"\n".join(texts)
    lines = await read(data, size)

    for index, line in enumerate(lines):
        assert await read(data, size, Cursor(*line.place)) == lines[index:]
        assert await read(data, size, line.next) == lines[index + 1 :]


async def test_a_line_with_half_a_surrogate_pair_is_no_line() -> None:
    [line] = await read(rb'{"custom_id": "\ud800", "method": "POST", "url": "/x", "body": {}}')

    with pytest.raises(BadLine, match="surrogate"):
        envelope_of(line, "/x")


async def test_a_line_that_is_too_long_is_not_kept_but_its_place_is() -> None:
    lines = [
        line
        async for line in read_lines(pieces(b"a\n" + b"x" * 100 + b"\nb", 9), max_line_bytes=50)
    ]

    assert [(line.place, line.text) for line in lines] == [
        (OpenLine(1, 0), b"a"),
        (OpenLine(2, 2), None),
        (OpenLine(3, 103), b"b"),
    ]


@given(st.sets(st.integers(1, 40)))
async def test_chosen_lines_are_found_whatever_lies_between(numbers: set[int]) -> None:
    data = b"\n".join(b"%d" % number for number in range(1, 41))
    places = {line.place.number: line.place for line in await read(data)}
    wanted = [places[number] for number in sorted(numbers)]

    found = [line async for line in read_at(lambda offset: pieces(data[offset:], 5), wanted)]

    assert [line.place for line in found] == wanted
    assert [line.text for line in found] == [b"%d" % number for number in sorted(numbers)]


async def test_a_wide_gap_is_jumped_and_a_narrow_one_read_over() -> None:
    gap = b"x" * (SKIP_BYTES + 10)
    data = b"a\nb\n" + gap + b"\nc\n"
    opened: list[int] = []

    def opening(offset: int) -> AsyncGenerator[bytes, None]:
        opened.append(offset)
        return pieces(data[offset:], 1000)

    wanted = [OpenLine(1, 0), OpenLine(2, 2), OpenLine(4, 5 + len(gap))]
    found = [line.text async for line in read_at(opening, wanted)]

    assert found == [b"a", b"b", b"c"]
    assert opened == [0, 5 + len(gap)]


async def test_a_line_that_is_not_where_it_was_is_missed() -> None:
    with pytest.raises(KeyError):
        [line async for line in read_at(lambda offset: pieces(b"", 5), [OpenLine(1, 0)])]


async def test_limits_end_the_look_at_once() -> None:
    data = "\n".join(a_line(number) for number in range(20)).encode()

    many = await look_through(pieces(data, 100), URL, max_lines=10)
    large = await look_through(pieces(data, 100), URL, max_bytes=300)

    assert [(fault.code, fault.line) for fault in many.faults] == [("too_many_requests", 11)]
    assert [fault.code for fault in large.faults] == ["file_too_large"]
    assert (await look_through(pieces(data, 100), URL, max_lines=20)).faults == []


async def test_memory_grows_by_the_names_of_lines_only_not_by_the_file() -> None:
    async def lines() -> AsyncGenerator[bytes, None]:
        for start in range(0, 5_000, 20):
            numbers = range(start, start + 20)
            yield "".join(a_line(n, note="x" * 2000) + "\n" for n in numbers).encode()

    tracemalloc.start()
    try:
        findings = await look_through(lines(), URL)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert (findings.total, findings.faults) == (5_000, [])
    assert findings.size_bytes > 10_000_000
    assert peak_bytes < 1_500_000
