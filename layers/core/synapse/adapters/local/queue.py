"""The queue of one process: in memory, because the records are the durable truth.

What a crash loses is put back by `SqliteJobStore.queued` at the next start, and by the sweeper
(docs/adr/0005-local-queue-in-memory.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synapse.adapters.local.line import Line
from synapse.domain.batching import JobMessage
from synapse.domain.errors import Unavailable
from synapse.domain.extension import NO_EXTENSIONS, Extensions
from synapse.domain.fair_share import FairShare
from synapse.domain.job import JobId, Priority, SlaTier

MAX_WAITING = 100_000
RETRY_AFTER_S = 5

Kind = tuple[str, SlaTier, Extensions]
"""A model, a tier, and what is required of engines."""


class _TierQueue:
    """Waiting jobs of a kind: a line per priority."""

    def __init__(self) -> None:
        self.lines = {priority: Line() for priority in Priority}
        self.turns = FairShare()
        self.sleepers: list[tuple[int, asyncio.Future[None]]] = []

    def __len__(self) -> int:
        return sum(len(line) for line in self.lines.values())

    @property
    def items(self) -> int:
        return sum(line.items for line in self.lines.values())

    def line_of(self, priority: Priority) -> Line:
        """The line of a priority, in which somebody is about to wait."""
        line = self.lines[priority]
        if not line:
            self.turns.joined(priority)
        return line

    def take(self) -> JobMessage:
        waiting = [priority for priority, line in self.lines.items() if line]
        priority = self.turns.next(waiting)
        message = self.lines[priority].pop()
        self.turns.charge(priority, message.items - 1)
        return message

    def wake(self) -> None:
        waiting = len(self)
        for at_least, sleeper in self.sleepers:
            if waiting >= at_least and not sleeper.done():
                sleeper.set_result(None)


class LocalJobQueue:
    """Bounded; a line per kind of job and priority; a job waits once, however often it is sent.

    Tiers wait apart, so that none holds up another, and so does what not every pool can run;
    among jobs of a kind the priorities have their shares, and among those the tenants their turns.
    """

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._queues: dict[Kind, _TierQueue] = {}
        self._waiting: dict[JobId, JobMessage] = {}

    def __len__(self) -> int:
        """Jobs waiting, of all models."""
        return len(self._waiting)

    async def send(self, messages: Sequence[JobMessage]) -> None:
        """Enqueue all messages, or none; one that waits already keeps its place.

        Raises:
            Unavailable: there is no room (`queue_full`).
        """
        new = {message.job_id for message in messages if message.job_id not in self._waiting}
        if new and len(self) + len(new) > self._max_waiting:
            raise Unavailable(
                f"{len(self)} jobs are waiting, which is as many as are accepted; try again later",
                code="queue_full",
                retry_after_s=RETRY_AFTER_S,
            )
        self.send_again(messages)

    def send_again(self, messages: Sequence[JobMessage]) -> None:
        """As `send` of jobs that were let in before, room or not."""
        for message in messages:
            self._add(message)
        self._wake(messages)

    def put_back(self, messages: Sequence[JobMessage]) -> None:
        """Return what was taken but could not be started to the head of its line, room or not."""
        for message in reversed(messages):
            self.discard(message.job_id)
            self._of(*_kind(message)).line_of(message.priority).put_back(message)
            self._waiting[message.job_id] = message
        self._wake(messages)

    async def depth(self, model: str) -> Mapping[Priority, int]:
        """Jobs waiting per priority."""
        queues = [queue for (name, *_), queue in self._queues.items() if name == model]
        return {each: sum(len(queue.lines[each]) for queue in queues) for each in Priority}

    async def items(self, model: str) -> Mapping[Priority, int]:
        """Items waiting per priority."""
        queues = [queue for (name, *_), queue in self._queues.items() if name == model]
        return {each: sum(queue.lines[each].items for queue in queues) for each in Priority}

    async def wait(
        self,
        model: str,
        tier: SlaTier,
        at_least: int = 1,
        requires: Extensions = NO_EXTENSIONS,
    ) -> None:
        """Return when that many jobs of the tier wait for the model; at once if they do."""
        queue = self._of(model, tier, requires)
        while len(queue) < at_least:
            sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            entry = (at_least, sleeper)
            queue.sleepers.append(entry)
            try:
                await sleeper
            finally:
                queue.sleepers.remove(entry)

    def take(
        self, model: str, tier: SlaTier, limit: int, requires: Extensions = NO_EXTENSIONS
    ) -> list[JobMessage]:
        """Remove and return the next messages: by priorities' shares, tenants' turns, then age.

        As many as have `limit` items; the last of them may have some more.
        """
        queue = self._of(model, tier, requires)
        taken: list[JobMessage] = []
        while limit > 0 and len(queue):
            message = queue.take()
            del self._waiting[message.job_id]
            taken.append(message)
            limit -= message.items
        return taken

    def waiting(self, model: str, tier: SlaTier, requires: Extensions = NO_EXTENSIONS) -> int:
        """Jobs of the tier that wait for the model."""
        return len(self._of(model, tier, requires))

    def waiting_by_kind(self) -> Mapping[Kind, int]:
        """Items waiting of each kind, a job has one or more; those of which there are any."""
        return {key: queue.items for key, queue in self._queues.items() if len(queue)}

    def oldest(
        self, model: str, tier: SlaTier, requires: Extensions = NO_EXTENSIONS
    ) -> JobMessage | None:
        """Of those that wait the one that was sent first; None if none does."""
        lines = self._of(model, tier, requires).lines.values()
        heads = [message for line in lines for message in line.heads()]
        return min(heads, key=lambda message: message.sent_at, default=None)

    def discard(self, job_id: JobId) -> None:
        """Take a job out, because it was cancelled; unknown ids are ignored."""
        message = self._waiting.pop(job_id, None)
        if message is not None:
            self._of(*_kind(message)).lines[message.priority].remove(message)

    def room(self) -> int:
        """How many more jobs may be sent."""
        return max(0, self._max_waiting - len(self))

    def _add(self, message: JobMessage) -> None:
        known = self._waiting.get(message.job_id)
        if known is not None and _place(known) != _place(message):
            self.discard(message.job_id)
        self._of(*_kind(message)).line_of(message.priority).add(message)
        self._waiting[message.job_id] = message

    def _wake(self, messages: Sequence[JobMessage]) -> None:
        for kind in {_kind(message) for message in messages}:
            self._of(*kind).wake()

    def _of(self, model: str, tier: SlaTier, requires: Extensions) -> _TierQueue:
        queue = self._queues.get((model, tier, requires))
        if queue is None:
            queue = self._queues[model, tier, requires] = _TierQueue()
        return queue


@dataclass(frozen=True, slots=True)
class Returns:
    """The queue as it is to those who give back what they took: full for newcomers only."""

    queue: LocalJobQueue

    async def send(self, messages: Sequence[JobMessage]) -> None:
        """See the port."""
        self.queue.send_again(messages)

    async def depth(self, model: str) -> Mapping[Priority, int]:
        """See the port."""
        return await self.queue.depth(model)

    async def items(self, model: str) -> Mapping[Priority, int]:
        """See the port."""
        return await self.queue.items(model)


def _kind(message: JobMessage) -> Kind:
    return message.model, message.sla, message.requires


def _place(message: JobMessage) -> tuple[Kind, Priority, str]:
    return _kind(message), message.priority, message.tenant
