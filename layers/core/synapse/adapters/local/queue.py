"""The queue of one process: in memory, because the records are the durable truth.

What a crash loses is put back by `SqliteJobStore.queued` at the next start, and by the sweeper
(docs/adr/0005-local-queue-in-memory.md).
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence

from synapse.domain.batching import JobMessage
from synapse.domain.errors import Unavailable
from synapse.domain.fair_share import FairShare
from synapse.domain.job import JobId, Priority, SlaTier

MAX_WAITING = 100_000
RETRY_AFTER_S = 5

_Line = OrderedDict[JobId, JobMessage]


class _ModelQueue:
    """What waits for one model: a line per priority, first sent first."""

    def __init__(self) -> None:
        self.lines: dict[Priority, _Line] = {priority: OrderedDict() for priority in Priority}
        self.turns = FairShare()
        self.sleepers: list[tuple[int, asyncio.Future[None]]] = []

    def __len__(self) -> int:
        return sum(len(line) for line in self.lines.values())

    def add(self, message: JobMessage) -> _Line:
        line = self.lines[message.priority]
        if not line:
            self.turns.joined(message.priority)
        line[message.job_id] = message
        return line

    def take(self) -> JobMessage:
        waiting = [priority for priority, line in self.lines.items() if line]
        _, message = self.lines[self.turns.next(waiting)].popitem(last=False)
        return message

    def wake(self) -> None:
        waiting = len(self)
        for at_least, sleeper in self.sleepers:
            if waiting >= at_least and not sleeper.done():
                sleeper.set_result(None)


class LocalJobQueue:
    """Bounded; a line per model and priority; a job waits once, however often it is sent."""

    def __init__(self, max_waiting: int = MAX_WAITING) -> None:
        self._max_waiting = max_waiting
        self._models: dict[str, _ModelQueue] = {}
        self._line_of: dict[JobId, _Line] = {}
        self._tiers: Counter[tuple[str, SlaTier]] = Counter()

    def __len__(self) -> int:
        """Jobs waiting, of all models."""
        return len(self._line_of)

    async def send(self, messages: Sequence[JobMessage]) -> None:
        """Enqueue all messages, or none; one that waits already keeps its place.

        Raises:
            Unavailable: there is no room (`queue_full`).
        """
        new = {message.job_id for message in messages if message.job_id not in self._line_of}
        if len(self) + len(new) > self._max_waiting:
            raise Unavailable(
                f"{len(self)} jobs are waiting, which is as many as are accepted; try again later",
                code="queue_full",
                retry_after_s=RETRY_AFTER_S,
            )
        for message in messages:
            self._add(message)
        for model in {message.model for message in messages}:
            self._models[model].wake()

    def put_back(self, messages: Sequence[JobMessage]) -> None:
        """Return what was taken but could not be started to the head of its line, room or not."""
        for message in reversed(messages):
            self._add(message)
            self._line_of[message.job_id].move_to_end(message.job_id, last=False)
        for model in {message.model for message in messages}:
            self._models[model].wake()

    async def depth(self, model: str) -> Mapping[Priority, int]:
        """Jobs waiting per priority."""
        lines = self._of(model).lines if model in self._models else {}
        return {priority: len(lines.get(priority, ())) for priority in Priority}

    async def wait(self, model: str, at_least: int = 1) -> None:
        """Return when that many jobs wait for the model; at once if they do."""
        queue = self._of(model)
        while len(queue) < at_least:
            sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            entry = (at_least, sleeper)
            queue.sleepers.append(entry)
            try:
                await sleeper
            finally:
                queue.sleepers.remove(entry)

    def take(self, model: str, limit: int) -> list[JobMessage]:
        """Remove and return the next messages: by fair shares of the priorities, then by age."""
        queue = self._of(model)
        taken = [queue.take() for _ in range(min(limit, len(queue)))]
        for message in taken:
            del self._line_of[message.job_id]
            self._tiers[message.model, message.sla] -= 1
        return taken

    def waiting(self, model: str) -> int:
        """Jobs waiting for the model."""
        return len(self._models[model]) if model in self._models else 0

    def waiting_by_tier(self) -> Mapping[tuple[str, SlaTier], int]:
        """Jobs waiting, by model and tier; those of which there are any."""
        return {key: waiting for key, waiting in self._tiers.items() if waiting}

    def oldest_age_s(self, model: str, now: float) -> float:
        """How long the oldest job of the model has waited; 0 if none does."""
        lines = self._of(model).lines.values()
        heads = [next(iter(line.values())) for line in lines if line]
        return max((now - message.sent_at for message in heads), default=0.0)

    def discard(self, job_id: JobId) -> None:
        """Take a job out, because it was cancelled; unknown ids are ignored."""
        line = self._line_of.pop(job_id, None)
        if line is not None:
            message = line.pop(job_id)
            self._tiers[message.model, message.sla] -= 1

    def room(self) -> int:
        """How many more jobs may be sent."""
        return max(0, self._max_waiting - len(self))

    def _add(self, message: JobMessage) -> None:
        queue = self._of(message.model)
        line = self._line_of.get(message.job_id)
        if line is not queue.lines[message.priority]:
            self.discard(message.job_id)
            line = None
        if line is None:
            self._tiers[message.model, message.sla] += 1
        self._line_of[message.job_id] = queue.add(message)

    def _of(self, model: str) -> _ModelQueue:
        return self._models.setdefault(model, _ModelQueue())
