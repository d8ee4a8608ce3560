"""Batches anywhere in their life, for property tests."""

from __future__ import annotations

from hypothesis import strategies as st

from synapse.domain.file_batch import Cursor, FileBatch, OpenLine, Step
from synapse.domain.job import Usage
from tests.factories import NOW, a_file_batch

LINE_BYTES = 10


@st.composite
def batches(draw: st.DrawFn) -> FileBatch:
    """A batch brought somewhere by steps that fit it."""
    total = draw(st.integers(1, 30))
    batch = a_file_batch(metadata=draw(st.none() | st.dictionaries(st.text(), st.text())))
    batch = batch.validated(total, total * LINE_BYTES, draw(st.none() | st.text()), NOW)
    for _ in range(draw(st.integers(0, 6))):
        batch = batch.stepped(draw(steps(batch)), NOW)
    return batch


@st.composite
def steps(draw: st.DrawFn, batch: FileBatch) -> Step:
    """A step that fits: some open lines end, some lines are read, of which some are bad."""
    ended = draw(st.sets(st.sampled_from([n for n, _ in batch.open_lines] or [0]))) - {0}
    first = batch.read_to.line
    until = draw(st.integers(first, batch.input_bytes // LINE_BYTES + 1))
    bad = draw(st.sets(st.integers(first, max(first, until - 1)))) if until > first else set()
    failed = draw(st.integers(0, len(ended)))
    return Step(
        read_to=Cursor(until, (until - 1) * LINE_BYTES),
        opened=tuple(
            OpenLine(n, (n - 1) * LINE_BYTES) for n in range(first, until) if n not in bad
        ),
        ended=frozenset(ended),
        completed=len(ended) - failed,
        failed=failed + len(bad),
        usage=Usage(len(ended), 0, 0),
        output_parts=("o",) * (len(ended) > failed),
    )
