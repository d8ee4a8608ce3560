"""The life of a job: its states, which changes between them are legal, and what each change does.

    QUEUED  → RUNNING | CANCELLED | EXPIRED | FAILED
    RUNNING → COMPLETED | FAILED | CANCELLED | EXPIRED | QUEUED (lease lost, or no worker took it)

Delivery is at least once; that effects happen exactly once rests on `TRANSITIONS`: every store
makes each change conditional on the state (and, for a running job, on who holds its lease).
All times are seconds since the epoch, UTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import NewType

from synapse.domain.extension import NO_EXTENSIONS, Extensions

JobId = NewType("JobId", str)

RESEND_AFTER_S = 120.0
MAX_RESEND_AFTER_S = 3600.0


class JobState(StrEnum):
    """Where a job is; the last four are final."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"

    @property
    def is_final(self) -> bool:
        """Whether nothing may change the job any more."""
        return not TRANSITIONS[self]


TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset(
        {JobState.RUNNING, JobState.CANCELLED, JobState.EXPIRED, JobState.FAILED}
    ),
    JobState.RUNNING: frozenset(
        {
            JobState.COMPLETED,
            JobState.FAILED,
            JobState.CANCELLED,
            JobState.EXPIRED,
            JobState.QUEUED,
        }
    ),
    JobState.COMPLETED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.EXPIRED: frozenset(),
}

OPEN_STATES = frozenset(state for state in JobState if TRANSITIONS[state])


def sources(target: JobState) -> frozenset[JobState]:
    """The states from which `target` may be entered; what a conditional write must check."""
    return frozenset(state for state, targets in TRANSITIONS.items() if target in targets)


def require_final(state: JobState) -> None:
    """Refuse (ValueError) to end a job in a state that is no end."""
    if not state.is_final:
        raise ValueError(f"a job cannot end {state}")


class Priority(StrEnum):
    """Which queue a job waits in."""

    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"

    @property
    def rank(self) -> int:
        """0 is served first."""
        return _RANKS[self]


_RANKS = {Priority.HIGH: 0, Priority.NORMAL: 1, Priority.LOW: 2}


class SlaTier(StrEnum):
    """The latency promised: gold p99 ≤ 50 ms, silver ≤ 150 ms, bronze best effort."""

    GOLD = "gold"
    SILVER = "silver"
    BRONZE = "bronze"

    @property
    def rank(self) -> int:
        """0 is the best."""
        return _TIER_RANKS[self]


def urgency(tier: SlaTier, priority: Priority = Priority.NORMAL) -> int:
    """For engines, on vLLM's scale: lower runs first, 0 is ordinary. Tier first, then priority."""
    return 3 * (tier.rank - 1) + priority.rank - 1


_TIER_RANKS = {SlaTier.GOLD: 0, SlaTier.SILVER: 1, SlaTier.BRONZE: 2}


@dataclass(frozen=True, slots=True)
class Payload:
    """A JSON text kept in the job record, or in the blob store when it is too large for it."""

    inline: str | None = None
    blob_key: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens read and written by the model.

    `cached_tokens` of the prompt were in the engine's prefix cache; None if it does not tell.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int | None = None

    @property
    def total_tokens(self) -> int:
        """What token limits and prices count."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a job did not complete: a stable code and a public text; `param` is what is to blame."""

    code: str
    message: str
    param: str | None = None


NOT_QUEUED = Failure("not_queued", "the job could not be queued; it never ran")
"""Of a job that is on record, but was refused: its caller was told to come again."""


@dataclass(frozen=True, slots=True)
class Lease:
    """Who may write a running job's outcome, and until when nobody else may take it over."""

    owner: str
    expires_at: float


@dataclass(frozen=True, slots=True)
class Served:
    """Where a job ran: the pool, its kind of accelerator, and how many rode in its batch.

    `worker` is the id of the one of the pool's workers, empty where its one has no name;
    `fallback` says why no pool met the job's tier, empty where this one did. For `cold_ms` of its
    wait no worker was up. It cost so much for the slots it held, and for keeping workers warm.
    """

    pool: str
    accelerator: str
    batch_size: int
    worker: str = ""
    fallback: str = ""
    cold_ms: float = 0.0
    active_usd: float = 0.0
    warm_usd: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of one running job, as its runner reports it.

    It began when it was claimed or, where its runner had to let it in, at `began_at`. One that is
    `unrun` never began: no engine was asked for it.
    """

    job_id: JobId
    state: JobState
    result: Payload | None = None
    usage: Usage | None = None
    failure: Failure | None = None
    served: Served | None = None
    began_at: float | None = None
    unrun: bool = False

    def __post_init__(self) -> None:
        require_final(self.state)


@dataclass(frozen=True, slots=True)
class Job:
    """One accepted request and all that has become of it.

    `payload` is the JSON of the input and its parameters; `deadline_at` is when the job expires
    unless it has ended; `sends` counts how often it was put into a queue, `resends` how often of
    those because nobody had taken its message, and `losses` how many workers were lost while they
    worked on it. `requires` is what its input requires of an engine, `items` the slots that it
    takes there: as many as it has samples.
    It was submitted by `account`, a key or a user of the `tenant`. Once it has ended, whoever asked
    for that is told if `announce` is set; `callback_url` is the job's own wish. A `metered` job has
    something reserved of its account's limits, which is settled when it ends.
    """

    id: JobId
    model: str
    version: str
    payload: Payload
    priority: Priority
    sla: SlaTier
    tokens: int
    created_at: float
    deadline_at: float
    state: JobState = JobState.QUEUED
    tenant: str = "default"
    account: str = ""
    announce: bool = False
    callback_url: str | None = field(default=None, repr=False)
    metered: bool = False
    metadata: Mapping[str, str] = field(default_factory=dict)
    sends: int = 1
    resends: int = 0
    sent_at: float = 0.0
    losses: int = 0
    requires: Extensions = NO_EXTENSIONS
    items: int = 1
    lease: Lease | None = None
    started_at: float | None = None
    finished_at: float | None = None
    result: Payload | None = None
    usage: Usage | None = None
    failure: Failure | None = None
    served: Served | None = None

    @property
    def was_refused(self) -> bool:
        """Whether nothing came of it but its record (`NOT_QUEUED`): it counts as no request."""
        return self.failure is not None and self.failure.code == NOT_QUEUED.code

    @property
    def is_told(self) -> bool:
        """Whether anybody is to be told of its end: of one that was refused nobody has the id."""
        return self.announce and not self.was_refused

    def can_be_claimed(self, owner: str, now: float) -> bool:
        """Whether a runner may take the job: it waits, is the runner's own, or was abandoned."""
        if self.state is JobState.QUEUED:
            return True
        if self.state is not JobState.RUNNING or self.lease is None:
            return False
        return self.lease.owner == owner or self.lease.expires_at <= now

    def claimed(self, lease: Lease, now: float) -> Job:
        """The job as taken by a runner; taking over an abandoned one counts as a loss."""
        again = self.is_held_by(lease.owner)
        abandoned = self.state is JobState.RUNNING and not again
        return replace(
            self,
            state=JobState.RUNNING,
            lease=lease,
            losses=self.losses + 1 if abandoned else self.losses,
            started_at=self.started_at if again else now,
        )

    def is_held_by(self, owner: str) -> bool:
        """Whether `owner` may write this job's outcome."""
        return (
            self.state is JobState.RUNNING and self.lease is not None and self.lease.owner == owner
        )

    def settled(self, outcome: Outcome, now: float) -> Job:
        """The job with its runner's outcome written into it."""
        began_at = self.started_at if outcome.began_at is None else outcome.began_at
        return replace(
            self,
            state=outcome.state,
            result=outcome.result,
            usage=outcome.usage,
            failure=outcome.failure,
            served=outcome.served,
            started_at=None if outcome.unrun else began_at,
            finished_at=now,
            lease=None,
        )

    def closed(self, state: JobState, failure: Failure | None, now: float) -> Job:
        """The job ended from outside: cancelled, expired or given up."""
        require_final(state)
        return replace(self, state=state, failure=failure, finished_at=now, lease=None)

    def requeued(self, now: float, *, lost: bool, unanswered: bool = False) -> Job:
        """The job back in its queue, one send later.

        `lost` if a worker went down with it, `unanswered` if nobody took its message in time.
        """
        return replace(
            self,
            state=JobState.QUEUED,
            lease=None,
            started_at=None,  # it waits again: what it did so far is no part of what it will cost
            sends=self.sends + 1,
            resends=self.resends + 1 if unanswered else self.resends,
            sent_at=now,
            losses=self.losses + 1 if lost else self.losses,
        )

    @property
    def due_at(self) -> float | None:
        """When the sweeper has to look at the job next; None once it has ended.

        A queued job is due when its message should long have been taken, a running one when its
        lease ends, and either at its deadline. The patience with a queued job doubles each time
        that it was in vain, so that a long backlog is not made longer by copies of its own
        messages. What was taken and given back, as while a worker starts, has not waited in vain;
        its patience is doubled once, however often: so it is due later than what runs, by which the
        autoscaler on AWS tells them apart.
        """
        if self.state is JobState.QUEUED:
            doublings = min(max(self.resends, 1 if self.sends > 1 else 0), 16)
            patience_s = min(MAX_RESEND_AFTER_S, RESEND_AFTER_S * 2.0**doublings)
            return min(self.deadline_at, (self.sent_at or self.created_at) + patience_s)
        if self.state is JobState.RUNNING and self.lease is not None:
            return min(self.deadline_at, self.lease.expires_at)
        return None
