"""The rules of a file batch's life."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse.domain.file_batch import (
    TRANSITIONS,
    Cursor,
    FileBatch,
    FileBatchStatus,
    LineFault,
    OpenLine,
    Pace,
    Step,
    window_s,
)
from tests.factories import NOW, a_file_batch
from tests.unit.batches.lives import LINE_BYTES, batches, steps


@given(batches())
def test_every_line_is_unread_or_open_or_counted_once(batch: FileBatch) -> None:
    unread = (batch.input_bytes - batch.read_to.offset) // LINE_BYTES
    done = batch.counts.completed + batch.counts.failed

    assert unread + len(batch.open_lines) + done == batch.counts.total
    assert batch.is_drained == (done == batch.counts.total)
    assert len(set(batch.open_lines)) == len(batch.open_lines)


@given(batches(), st.data())
def test_a_step_made_twice_does_not_count_twice(batch: FileBatch, data: st.DataObject) -> None:
    step = data.draw(steps(batch))
    after = batch.stepped(step, NOW)

    if step.ended or step.opened:
        with pytest.raises(ValueError, match=r"open|opened|more lines"):
            after.stepped(step, NOW)


@pytest.mark.parametrize("source", FileBatchStatus)
@pytest.mark.parametrize("target", FileBatchStatus)
def test_a_status_is_entered_only_from_where_it_may_be(
    source: FileBatchStatus, target: FileBatchStatus
) -> None:
    batch = a_file_batch(status=source)
    if target in TRANSITIONS[source]:
        assert batch.moved(target, NOW + 5).entered == {target: NOW + 5}
    else:
        with pytest.raises(ValueError, match=f"{source} cannot become {target}"):
            batch.moved(target, NOW)


def test_four_statuses_are_ends() -> None:
    assert {status.value for status in FileBatchStatus if status.is_final} == {
        "failed",
        "completed",
        "expired",
        "cancelled",
    }


def test_a_failed_batch_says_why() -> None:
    fault = LineFault("empty_file", "nothing in it")

    failed = a_file_batch().failed([fault], NOW + 1)

    assert (failed.status, failed.faults) == (FileBatchStatus.FAILED, (fault,))


def test_a_cancelled_batch_does_not_expire() -> None:
    batch = a_file_batch().moved(FileBatchStatus.CANCELLING, NOW)

    assert batch.is_over_at(NOW)
    assert not batch.has_expired_at(batch.expires_at + 1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("24h", 86_400), ("1h", 3600), ("30m", 1800), ("1m", 60), ("1440m", 86_400)],
)
def test_windows_are_hours_or_minutes(text: str, seconds: float) -> None:
    assert window_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "25h", "0m", "7d", "24", "1.5h", "024h", " 1h", "1441m", "²h"]
)
def test_other_windows_are_not_offered(text: str) -> None:
    assert window_s(text) is None


def paced(**changes: Any) -> float:
    open_lines = tuple(OpenLine(n, n) for n in range(1, changes.pop("open_lines", 100) + 1))
    batch = a_file_batch().validated(1000, 1000, None, NOW)
    step = Step(Cursor(1, 0), completed=changes.pop("done", 0))
    batch = batch.stepped(step, changes.pop("progressed_at", NOW))
    batch = FileBatch(**{**_fields(batch), "open_lines": open_lines})
    return Pace(min_s=0.5, max_s=60).wait_s(batch, changes["now"])


def _fields(batch: FileBatch) -> dict[str, Any]:
    return {name: getattr(batch, name) for name in FileBatch.__dataclass_fields__}


def test_the_next_look_is_when_half_of_the_open_lines_should_have_ended() -> None:
    assert paced(open_lines=100, done=50, progressed_at=NOW + 100, now=NOW + 100) == 60
    assert paced(open_lines=100, done=500, progressed_at=NOW + 100, now=NOW + 100) == 10


def test_the_first_looks_are_soon_and_grow_rarer_while_nothing_ends() -> None:
    assert paced(now=NOW) == 0.5
    assert paced(now=NOW + 100) == 10
    assert paced(now=NOW + 10_000) == 60
