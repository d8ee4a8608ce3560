"""Ends that could not be written: kept until their jobs' next turn, within bounds."""

from __future__ import annotations

from synapse.application.unwritten import END_BYTES, Known, Unwritten
from synapse.domain.job import JobId, JobState, Outcome
from tests.factories import NOW


def an_end(number: int, text: str | None = "x" * 100, deadline_at: float = NOW + 60) -> Known:
    return Known(Outcome(JobId(f"job-{number}"), JobState.COMPLETED), text, deadline_at)


def test_an_end_is_kept_until_it_is_taken() -> None:
    unwritten = Unwritten()
    unwritten.keep(an_end(1), NOW)
    unwritten.keep(an_end(2, text=None), NOW)

    assert unwritten.take(JobId("job-1")) == an_end(1)
    assert unwritten.take(JobId("job-1")) is None
    assert unwritten.take(JobId("job-2")) == an_end(2, text=None)


def test_no_more_is_kept_than_there_is_room_for() -> None:
    unwritten = Unwritten(max_bytes=10 * (END_BYTES + 100))
    for number in range(20):
        unwritten.keep(an_end(number), NOW)
        unwritten.keep(an_end(number), NOW)

    kept = [number for number in range(20) if unwritten.take(JobId(f"job-{number}"))]

    assert kept == list(range(10)), "those that were there first: each is to be computed once"
    unwritten.keep(an_end(99, text="x" * 9 * END_BYTES), NOW)
    assert unwritten.take(JobId("job-99")) is not None


def test_ends_that_nobody_wants_any_more_make_room() -> None:
    unwritten = Unwritten(max_bytes=2 * (END_BYTES + 100))
    unwritten.keep(an_end(1, deadline_at=NOW + 5), NOW)
    unwritten.keep(an_end(2), NOW)

    unwritten.keep(an_end(3), NOW + 5)

    assert [bool(unwritten.take(JobId(f"job-{n}"))) for n in (1, 2, 3)] == [False, True, True]
