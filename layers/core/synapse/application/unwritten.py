"""Ends of jobs that are known and could not be written: only the write is to be repeated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from synapse.domain.job import JobId, Outcome

MAX_BYTES = 32 * 1024 * 1024
"""Of texts. What is not kept for want of room is computed again."""

END_BYTES = 1024
"""What an end takes in memory besides its text, about."""


class Known(NamedTuple):
    """How a job ended, and the text of its result, which the outcome has not yet; None without.

    After `deadline_at` nobody wants it any more.
    """

    outcome: Outcome
    text: str | None
    deadline_at: float

    @property
    def size_bytes(self) -> int:
        """How much memory it takes, about."""
        return END_BYTES + len(self.text or "")


@dataclass(slots=True)
class Unwritten:
    """The ends that this process could not write, until their jobs' next turn.

    An engine may have worked on them for minutes, and a full disk stays full for longer.
    """

    max_bytes: int = MAX_BYTES
    _known: dict[JobId, Known] = field(default_factory=dict)
    _size_bytes: int = 0

    def keep(self, known: Known, now: float) -> None:
        """Keep an end if there is room, beside those of jobs that are not past their deadline."""
        self.take(known.outcome.job_id)
        if self._size_bytes + known.size_bytes > self.max_bytes:
            for job_id in [i for i, each in self._known.items() if each.deadline_at <= now]:
                self.take(job_id)
        if self._size_bytes + known.size_bytes <= self.max_bytes:
            self._known[known.outcome.job_id] = known
            self._size_bytes += known.size_bytes

    def __contains__(self, job_id: JobId) -> bool:
        """Whether the end of a job is kept."""
        return job_id in self._known

    def take(self, job_id: JobId) -> Known | None:
        """The end that was kept for a job, which is kept no more."""
        known = self._known.pop(job_id, None)
        if known is not None:
            self._size_bytes -= known.size_bytes
        return known
