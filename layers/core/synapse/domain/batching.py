"""How waiting jobs become batches, and when a batch should leave.

The control plane batches to spread its own cost; the engine batches for the accelerator, so a
batch here is a set of prompts sent together, never padded into one tensor.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from synapse.domain.extension import NO_EXTENSIONS, Extensions
from synapse.domain.job import JobId, Priority, SlaTier


@dataclass(frozen=True, slots=True)
class BatchPolicy:
    """Limits of one batch: items, tokens (prompt + output, summed), and how long to gather."""

    max_items: int
    max_tokens: int
    max_wait_ms: float = 0.0

    def __post_init__(self) -> None:
        if self.max_items < 1 or self.max_tokens < 1 or self.max_wait_ms < 0:
            raise ValueError(f"not a usable batch policy: {self}")


@dataclass(frozen=True, slots=True)
class JobMessage:
    """What a queue carries of a job: its id and what planning needs, never its payload.

    `items` are the slots that it takes at an engine, `tokens` those of one of them.
    """

    job_id: JobId
    model: str
    version: str
    priority: Priority
    tokens: int
    sent_at: float
    deadline_at: float
    losses: int = 0
    sla: SlaTier = SlaTier.BRONZE
    requires: Extensions = NO_EXTENSIONS
    tenant: str = "default"
    items: int = 1

    @property
    def all_tokens(self) -> int:
        """Of all its items together: each reads the prompt, and writes for itself."""
        return self.tokens * self.items

    @property
    def is_suspect(self) -> bool:
        """Whether a worker was lost with this job before, so that it must not ride with others."""
        return self.losses > 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Jobs of one model, version and tier that travel together.

    `fallback` says why no pool meets the tier, where none does (`domain.routing`). `items` are the
    slots that each of the jobs takes; none where that is not told: then it is one each.
    """

    id: str
    model: str
    version: str
    job_ids: tuple[JobId, ...]
    tokens: int
    sla: SlaTier = SlaTier.BRONZE
    fallback: str = ""
    items: tuple[int, ...] = ()

    @property
    def items_of_jobs(self) -> tuple[int, ...]:
        """As `items`, of each job."""
        return self.items or (1,) * len(self.job_ids)

    @property
    def slots(self) -> int:
        """Those that all of its jobs take at once at an engine."""
        return sum(self.items_of_jobs)


def filling(items: Sequence[int], room: int) -> int:
    """How many of these, each of so many items, begin in their order where there is room.

    As long as any is left: the last of them may be larger than that, or it would never begin where
    there are always others.
    """
    for number, each in enumerate(items):
        if room <= 0:
            return number
        room -= each
    return len(items)


def plan_batches(
    messages: Iterable[JobMessage],
    policy_of: Callable[[str], BatchPolicy],
    new_id: Callable[[], str],
) -> list[Batch]:
    """Group messages into batches: every message in exactly one, limits kept, order kept.

    Order is priority, then time of arrival, so the batches of a model come out in the order in
    which they should run. A job larger than a limit travels alone rather than never,
    and so does a suspect (one that was on a worker when it died). A job named twice (the queue
    delivers at least once) is planned once.
    """
    # Of a job named twice the later message counts, which knows of every loss.
    latest = {m.job_id: m for m in sorted(messages, key=lambda m: (m.losses, m.sent_at))}
    ordered = sorted(latest.values(), key=lambda m: (*_kind(m), *_turn(m)))
    planned: list[tuple[tuple[int, float], Batch]] = []
    for (model, version, sla, _), group in groupby(ordered, key=_kind):
        planned.extend(
            (
                _turn(part[0]),
                Batch(
                    new_id(),
                    model,
                    version,
                    tuple(m.job_id for m in part),
                    _tokens(part),
                    sla,
                    items=tuple(m.items for m in part),
                ),
            )
            for part in _split(list(group), policy_of(model))
        )
    planned.sort(key=lambda each: (each[1].model, each[1].version, each[0]))
    return [batch for _, batch in planned]


def _kind(message: JobMessage) -> tuple[str, str, SlaTier, tuple[str, ...]]:
    """What rides together: a batch goes to one pool, which is chosen by tier and requirements."""
    return message.model, message.version, message.sla, tuple(sorted(message.requires))


def _turn(message: JobMessage) -> tuple[int, float]:
    return message.priority.rank, message.sent_at


def _tokens(messages: Sequence[JobMessage]) -> int:
    return sum(message.all_tokens for message in messages)


def _split(messages: Sequence[JobMessage], policy: BatchPolicy) -> Iterable[list[JobMessage]]:
    part: list[JobMessage] = []
    items = tokens = 0
    for message in messages:
        if message.is_suspect:
            yield [message]
            continue
        items, tokens = items + message.items, tokens + message.all_tokens
        if part and (items > policy.max_items or tokens > policy.max_tokens):
            yield part
            part, items, tokens = [], message.items, message.all_tokens
        part.append(message)
    if part:
        yield part


def gather_for_s(waiting: int, oldest_age_s: float, in_flight: int, policy: BatchPolicy) -> float:
    """How much longer to gather before a batch leaves, in seconds; 0 means send now.

    An idle worker gets what there is at once; while one is busy, waiting costs nothing until
    the batch is full or the oldest job has waited `max_wait_ms`.
    """
    if waiting == 0:
        raise ValueError("nothing is waiting: there is no batch to time")
    if in_flight == 0 or waiting >= policy.max_items:
        return 0.0
    # Where the clock was put back the oldest comes from the future: it has just come.
    return max(0.0, policy.max_wait_ms / 1000 - max(0.0, oldest_age_s))
