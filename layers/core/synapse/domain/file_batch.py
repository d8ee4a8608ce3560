"""The life of a file batch: the requests of one file, run at low priority within a window.

    VALIDATING  → IN_PROGRESS | FAILED | CANCELLING
    IN_PROGRESS → FINALIZING | EXPIRED | CANCELLING | FAILED
    FINALIZING  → COMPLETED
    CANCELLING  → CANCELLED

Each line of the file that asks for something becomes one job, whose id follows from the batch and
the line, so that submitting a line again finds the job it made before. The record is a
checkpoint: up to where the file has been read, which lines are open, and what has been written of
the others. Lines that end between two checkpoints are simply met again.
(What the rest of the code calls a batch is jobs that travel together to an engine.)
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NamedTuple, NewType

from synapse.domain.access import ANYONE, Principal
from synapse.domain.job import JobId, SlaTier, Usage

FileBatchId = NewType("FileBatchId", str)

MAX_LINES = 50_000
MAX_INPUT_BYTES = 200 * 1024 * 1024
MIN_WINDOW_S = 60.0
MAX_WINDOW_S = 86_400.0
LINE_TIER = SlaTier.BRONZE
"""What lines are promised."""

RETENTION_S = 30 * 86_400.0
"""How long an ended batch is remembered after its window."""


class FileBatchStatus(StrEnum):
    """Where a batch is, in OpenAI's words."""

    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether nothing may change the batch any more."""
        return not TRANSITIONS[self]


TRANSITIONS: Mapping[FileBatchStatus, frozenset[FileBatchStatus]] = {
    FileBatchStatus.VALIDATING: frozenset(
        {FileBatchStatus.IN_PROGRESS, FileBatchStatus.FAILED, FileBatchStatus.CANCELLING}
    ),
    FileBatchStatus.IN_PROGRESS: frozenset(
        {
            FileBatchStatus.FINALIZING,
            FileBatchStatus.EXPIRED,
            FileBatchStatus.CANCELLING,
            FileBatchStatus.FAILED,
        }
    ),
    FileBatchStatus.FINALIZING: frozenset({FileBatchStatus.COMPLETED}),
    FileBatchStatus.CANCELLING: frozenset({FileBatchStatus.CANCELLED}),
    FileBatchStatus.COMPLETED: frozenset(),
    FileBatchStatus.FAILED: frozenset(),
    FileBatchStatus.EXPIRED: frozenset(),
    FileBatchStatus.CANCELLED: frozenset(),
}


class OpenLine(NamedTuple):
    """A line whose job is under way: its number (the file's first is 1) and where it begins."""

    number: int
    offset: int


class Cursor(NamedTuple):
    """Up to where a file has been read: the number of the next line, and where it begins."""

    line: int = 1
    offset: int = 0


START = Cursor()
NO_USAGE = Usage(0, 0, 0)


@dataclass(frozen=True, slots=True)
class Counts:
    """Requests: in the file, answered, and ended without an answer."""

    total: int = 0
    completed: int = 0
    failed: int = 0


NOTHING_COUNTED = Counts()


@dataclass(frozen=True, slots=True)
class LineFault:
    """What is wrong with the file, or with one of its lines."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """What one step forward has done.

    `read_to` is where the file was left, `opened` the lines that were submitted, `ended` the open
    lines that are done with. `completed` and `failed` count what was written to the step's parts,
    which are blobs of output and error lines. `usage` is that of the answers.
    """

    read_to: Cursor
    opened: tuple[OpenLine, ...] = ()
    ended: frozenset[int] = frozenset()
    completed: int = 0
    failed: int = 0
    usage: Usage = NO_USAGE
    output_parts: tuple[str, ...] = ()
    error_parts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileBatch:
    """One batch and its checkpoint; `revision` counts the writes of its record.

    `entered` says when each status after the first was entered, `progressed_at` when a line last
    ended, and `advanced_at` when somebody last worked on the batch.
    """

    id: FileBatchId
    endpoint: str
    input_file_id: str
    input_key: str
    completion_window: str
    window_s: float
    created_at: float
    caller: Principal = ANYONE
    metadata: Mapping[str, str] | None = None
    output_expires_after_s: int | None = None
    status: FileBatchStatus = FileBatchStatus.VALIDATING
    entered: Mapping[FileBatchStatus, float] = field(default_factory=dict)
    model: str | None = None
    input_bytes: int = 0
    counts: Counts = NOTHING_COUNTED
    usage: Usage = NO_USAGE
    faults: tuple[LineFault, ...] = ()
    read_to: Cursor = START
    open_lines: tuple[OpenLine, ...] = ()
    output_parts: tuple[str, ...] = ()
    error_parts: tuple[str, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    advanced_at: float = 0.0
    progressed_at: float = 0.0
    revision: int = 0

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.caller.tenant

    @property
    def expires_at(self) -> float:
        """When what is unfinished expires."""
        return self.created_at + self.window_s

    @property
    def is_drained(self) -> bool:
        """Whether every line of the file has been dealt with."""
        return not self.open_lines and self.read_to.offset >= self.input_bytes

    def is_over_at(self, now: float) -> bool:
        """Whether no more lines may be run: it was cancelled, or its window has passed."""
        return self.status is FileBatchStatus.CANCELLING or self.has_expired_at(now)

    def has_expired_at(self, now: float) -> bool:
        """Whether the window passed before the batch was done or cancelled."""
        return self.status is not FileBatchStatus.CANCELLING and self.expires_at <= now

    def wants(self, line: OpenLine, now: float) -> bool:
        """Whether a line may run: its job is under way, or its turn is still to come."""
        if self.status.is_final or self.is_over_at(now):
            return False
        return line in self.open_lines or self.read_to <= Cursor(*line)

    def job_id(self, line: int) -> JobId:
        """The job of a line."""
        return JobId(f"{self.id}-{line:06d}")

    def moved(self, status: FileBatchStatus, now: float) -> FileBatch:
        """The batch in another status.

        Raises:
            ValueError: it may not go there.
        """
        if status not in TRANSITIONS[self.status]:
            raise ValueError(f"a batch that is {self.status} cannot become {status}")
        return replace(self, status=status, entered={**self.entered, status: now})

    def validated(self, total: int, size_bytes: int, model: str | None, now: float) -> FileBatch:
        """The batch once its file has been looked through."""
        moved = self.moved(FileBatchStatus.IN_PROGRESS, now)
        counts = Counts(total)
        return replace(moved, counts=counts, input_bytes=size_bytes, model=model, progressed_at=now)

    def failed(self, faults: Sequence[LineFault], now: float) -> FileBatch:
        """The batch given up, because of its file."""
        return replace(self.moved(FileBatchStatus.FAILED, now), faults=tuple(faults))

    def stepped(self, step: Step, now: float) -> FileBatch:
        """The batch one step further.

        Raises:
            ValueError: the step does not fit the batch; nothing may be counted twice or lost.
        """
        before = {line.number for line in self.open_lines}
        if not step.ended <= before:
            raise ValueError("only open lines can end")
        if step.read_to < self.read_to or any(
            not self.read_to <= Cursor(*line) < step.read_to for line in step.opened
        ):
            raise ValueError("only lines that were read in this step can be opened")
        counts = Counts(
            self.counts.total,
            self.counts.completed + step.completed,
            self.counts.failed + step.failed,
        )
        still = tuple(line for line in self.open_lines if line.number not in step.ended)
        if counts.completed + counts.failed + len(still) + len(step.opened) > counts.total:
            raise ValueError("more lines than the file has")
        return replace(
            self,
            counts=counts,
            usage=added(self.usage, step.usage),
            read_to=step.read_to,
            open_lines=still + step.opened,
            output_parts=self.output_parts + step.output_parts,
            error_parts=self.error_parts + step.error_parts,
            progressed_at=now if step.completed + step.failed else self.progressed_at,
        )


def window_s(text: str) -> float | None:
    """Seconds of a completion window such as 24h or 30m; None if it is none that is offered."""
    match = re.fullmatch(r"([1-9][0-9]{0,3})([hm])", text)
    if match is None:
        return None
    seconds = int(match[1]) * (3600.0 if match[2] == "h" else 60.0)
    return seconds if MIN_WINDOW_S <= seconds <= MAX_WINDOW_S else None


@dataclass(frozen=True, slots=True)
class Pace:
    """How long to wait between two steps, in seconds at least and at most."""

    min_s: float
    max_s: float

    def wait_s(self, batch: FileBatch, now: float) -> float:
        """Until about half of the open lines should have ended at the rate seen so far.

        While nothing ends the pauses grow, to a tenth of the time since something did.
        """
        started_at = batch.entered.get(FileBatchStatus.IN_PROGRESS, now)
        done = batch.counts.completed + batch.counts.failed
        elapsed_s = max(0.0, now - started_at)
        half_s = len(batch.open_lines) / 2 * elapsed_s / done if done else 0.0
        quiet_s = max(0.0, now - batch.progressed_at) / 10
        return min(self.max_s, max(self.min_s, min(half_s, elapsed_s), quiet_s))


def added(one: Usage, other: Usage) -> Usage:
    """The sum of two usages."""
    return Usage(
        one.prompt_tokens + other.prompt_tokens,
        one.completion_tokens + other.completion_tokens,
        (one.cached_tokens or 0) + (other.cached_tokens or 0),
    )
