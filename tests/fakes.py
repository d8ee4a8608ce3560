"""Working in-memory implementations of every port; `tests.faults` makes any of them fail.

The fakes of the stores pass the same contract suites as the real adapters (`tests/contract`),
so what a test learns with them holds on both targets.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from synapse.domain.answer import Answered
from synapse.domain.batching import Batch, JobMessage
from synapse.domain.delivery import Delivery
from synapse.domain.errors import EngineError, IdempotencyConflict
from synapse.domain.estimate import ServiceRate
from synapse.domain.file_batch import FileBatch
from synapse.domain.inference import Completion, Delta, Embeddings, Result
from synapse.domain.job import (
    Failure,
    Job,
    JobId,
    JobState,
    Lease,
    Outcome,
    Priority,
    Usage,
    require_final,
    sources,
)
from synapse.domain.model import ModelSpec, ServiceSample, WorkerHealth
from synapse.domain.pool import Pool
from synapse.domain.scaling import ScalingDecision
from synapse.ports import (
    BatchOrder,
    Clock,
    Created,
    Idempotency,
    InferenceRequest,
    StreamingEngine,
)
from tests.factories import NOW
from tests.fake_usage import MemoryUsageStore

RETENTION_S = 7 * 86_400.0


class FakeClock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> float:
        """Let time pass; returns the new time."""
        self.now += seconds
        return self.now


class MemoryJobStore:
    """Job records in a dict. Nothing is awaited inside a change, so every change is atomic."""

    def __init__(
        self,
        clock: Clock | None = None,
        retention_s: float = RETENTION_S,
        usage: MemoryUsageStore | None = None,
    ) -> None:
        self.usage = usage or MemoryUsageStore()
        self._clock = clock or FakeClock()
        self._retention_s = retention_s
        self._jobs: dict[JobId, Job] = {}
        self._keys: dict[tuple[str, str], tuple[str, JobId]] = {}
        self._ended: defaultdict[JobId, asyncio.Event] = defaultdict(asyncio.Event)

    @property
    def jobs(self) -> Mapping[JobId, Job]:
        """All records, also those past retention."""
        return self._jobs

    async def create(self, job: Job, idempotency: Idempotency | None = None) -> Created:
        if idempotency is not None:
            first = await self.made_with(job.tenant, idempotency)
            if first is not None:
                return Created(first, is_new=False)
        await self.create_many([job])
        if idempotency is not None:
            self._keys[job.tenant, idempotency.key] = (idempotency.fingerprint, job.id)
        return Created(job, is_new=True)

    @asynccontextmanager
    async def recording(self, job: Job) -> AsyncIterator[None]:
        await self.create(job)
        yield

    async def made_with(self, tenant: str, idempotency: Idempotency) -> Job | None:
        fingerprint, first_id = self._keys.get((tenant, idempotency.key), ("", JobId("")))
        first = self._kept(first_id)
        if first is not None and fingerprint != idempotency.fingerprint:
            raise IdempotencyConflict("the key was used before with another body")
        return first

    async def create_many(self, jobs: Sequence[Job]) -> None:
        ids = [job.id for job in jobs]
        taken = next((i for i in ids if i in self._jobs or ids.count(i) > 1), None)
        if taken is not None:
            raise ValueError(f"there is a job {taken!r} already")
        self._jobs.update({job.id: job for job in jobs})

    async def get(self, job_id: JobId) -> Job | None:
        return self._kept(job_id)

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, now: float) -> list[Job]:
        claimed: list[Job] = []
        for job_id in dict.fromkeys(job_ids):
            job = self._kept(job_id)
            if job is not None and job.can_be_claimed(lease.owner, now):
                claimed.append(self._write(job.claimed(lease, now)))
        return claimed

    async def settle(self, outcome: Outcome, owner: str, now: float) -> Job | None:
        job = self._kept(outcome.job_id)
        if job is None or not job.is_held_by(owner) or job.state not in sources(outcome.state):
            return None
        return self._write(job.settled(outcome, now))

    async def close(
        self, job_id: JobId, state: JobState, failure: Failure | None, now: float
    ) -> Job | None:
        require_final(state)
        job = self._kept(job_id)
        if job is None or job.state not in sources(state):
            return None
        return self._write(job.closed(state, failure, now))

    async def requeue(
        self, job: Job, now: float, *, lost: bool, unanswered: bool = False
    ) -> Job | None:
        current = self._kept(job.id)
        if current is None or current.state.is_final or _standing(current) != _standing(job):
            return None
        return self._write(current.requeued(now, lost=lost, unanswered=unanswered))

    async def due(self, now: float, limit: int) -> list[Job]:
        due = [(job.due_at, job) for job in self._jobs.values() if job.due_at is not None]
        due = [(at, job) for at, job in due if at <= now and self._kept(job.id)]
        return [job for _, job in sorted(due, key=lambda entry: entry[0])][:limit]

    async def watch(self, job_id: JobId, timeout_s: float) -> None:
        job = self._kept(job_id)
        if job is None or job.state.is_final:
            return
        try:
            await asyncio.wait_for(self._ended[job_id].wait(), timeout_s)
        except TimeoutError:
            return

    def _kept(self, job_id: JobId) -> Job | None:
        job = self._jobs.get(job_id)
        if job is None or job.deadline_at + self._retention_s <= self._clock():
            return None
        return job

    def _write(self, job: Job) -> Job:
        self._jobs[job.id] = job
        if job.state.is_final:
            self.usage.count(job)
        if job.state.is_final and job.id in self._ended:
            self._ended.pop(job.id).set()
        return job


def _standing(job: Job) -> tuple[JobState, str | None, int]:
    return job.state, job.lease.owner if job.lease else None, job.sends


class MemoryJobQueue:
    """Messages in a list, in the order in which they were sent."""

    def __init__(self) -> None:
        self.messages: list[JobMessage] = []

    async def send(self, messages: Sequence[JobMessage]) -> None:
        self.messages.extend(messages)

    async def depth(self, model: str) -> Mapping[Priority, int]:
        waiting = [message.priority for message in self.messages if message.model == model]
        return {priority: waiting.count(priority) for priority in Priority}

    async def items(self, model: str) -> Mapping[Priority, int]:
        items = dict.fromkeys(Priority, 0)
        for message in self.messages:
            if message.model == model:
                items[message.priority] += message.items
        return items

    def take(self, limit: int | None = None) -> list[JobMessage]:
        """Receive messages, first sent first."""
        taken = self.messages[:limit]
        del self.messages[:limit]
        return taken


class MemoryBlobStore:
    """Bytes in a dict."""

    PIECE_BYTES = 1000

    def __init__(self, inline_bytes: int = 128 * 1024) -> None:
        self.inline_bytes = inline_bytes
        self.blobs: dict[str, bytes] = {}

    async def put(self, key: str, data: bytes) -> None:
        self.blobs[key] = bytes(data)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        data = b"".join([chunk async for chunk in chunks])
        self.blobs[key] = data
        return len(data)

    async def get(self, key: str) -> bytes:
        return self.blobs[key]

    async def stream(self, key: str, start: int = 0) -> AsyncGenerator[bytes, None]:
        data = self.blobs[key]
        for place in range(start, len(data), self.PIECE_BYTES):
            yield data[place : place + self.PIECE_BYTES]

    async def delete(self, key: str) -> None:
        self.blobs.pop(key, None)


class MeetingBlobStore(MemoryBlobStore):
    """Every text of more than 4 bytes is a blob; those of jobs are put and got so many at once."""

    def __init__(self, *, puts: int = 1, gets: int = 1) -> None:
        super().__init__(inline_bytes=4)
        self._puts, self._gets = asyncio.Barrier(puts), asyncio.Barrier(gets)

    def puts_meet(self, parties: int) -> None:
        """From now on so many are put at once."""
        self._puts = asyncio.Barrier(parties)

    def gets_meet(self, parties: int) -> None:
        """From now on so many are got at once."""
        self._gets = asyncio.Barrier(parties)

    async def put(self, key: str, data: bytes) -> None:
        if key.startswith("jobs/"):
            await self._meet(self._puts)
        await super().put(key, data)

    async def get(self, key: str) -> bytes:
        if key.startswith("jobs/"):
            await self._meet(self._gets)
        return await super().get(key)

    async def _meet(self, barrier: asyncio.Barrier) -> None:
        async with asyncio.timeout(5.0):
            await barrier.wait()


class MemoryRegistry:
    """A catalogue, pools, and what was measured."""

    RATE_MINUTES = 5

    def __init__(self, models: Sequence[ModelSpec] = (), pools: Sequence[Pool] = ()) -> None:
        self._models = {model.name: model for model in models}
        self._pools = tuple(pools)
        self._minutes: dict[tuple[str, str], dict[int, ServiceRate]] = defaultdict(dict)
        self._health: dict[tuple[str, str], WorkerHealth] = {}

    async def models(self) -> Sequence[ModelSpec]:
        return [self._models[name] for name in sorted(self._models)]

    async def model(self, name: str) -> ModelSpec | None:
        return self._models.get(name)

    async def pools(self, model: str) -> Sequence[Pool]:
        return [pool for pool in self._pools if model in self._models and pool.serves(model)]

    async def record_service(self, sample: ServiceSample, now: float) -> None:
        minute = int(now // 60)
        for pool in (sample.pool, ""):
            minutes = self._minutes[sample.model, pool]
            so_far = minutes.get(minute, ServiceRate(0, 0.0))
            busy_s = so_far.busy_s + sample.busy_s
            minutes[minute] = ServiceRate(so_far.items + sample.items, busy_s)

    async def service_rate(self, model: str, now: float, pool: str = "") -> ServiceRate:
        minutes = self._minutes[model, pool]
        worked = [minutes[minute] for minute in sorted(minutes) if minute][-self.RATE_MINUTES :]
        latest = worked or list(minutes.values())
        items, busy_s = sum(r.items for r in latest), sum(r.busy_s for r in latest)
        return ServiceRate(items, busy_s, is_guess=bool(latest) and not worked)

    async def record_health(self, health: WorkerHealth) -> None:
        self._health[health.model, health.pool] = health

    async def health(self) -> Sequence[WorkerHealth]:
        return [self._health[key] for key in sorted(self._health)]


class RecordingBatchStarter:
    """Keeps the orders it was given."""

    def __init__(self) -> None:
        self.orders: list[BatchOrder] = []

    async def start(self, orders: Sequence[BatchOrder]) -> None:
        self.orders.extend(orders)


Answer = Result | EngineError
Script = Callable[[InferenceRequest], Answer]


def echoed(request: InferenceRequest) -> Answer:
    """The prompt (or the last message) said back; of inputs, vectors (words, characters)."""
    value = request.input
    if value.inputs:
        texts = [
            text if isinstance(text, str) else " ".join(map(str, text)) for text in value.inputs
        ]
        vectors = [struct.pack("<2f", len(text.split()), len(text)) for text in texts]
        return Embeddings(tuple(vectors), Usage(sum(len(text.split()) for text in texts)))
    text = value.messages[-1].content if value.messages else str(value.prompt or "")
    words = len(text.split())
    return Completion(text, "stop", Usage(words, words))


class ScriptedEngine(StreamingEngine):
    """Answers each request as its script says, in the order asked; echoes where it has none."""

    def __init__(self, script: Script | Mapping[str, Answer] = echoed) -> None:
        self._script = script
        self.calls: list[tuple[ModelSpec, Pool, tuple[InferenceRequest, ...]]] = []

    async def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Answer], None]:
        self.calls.append((model, pool, tuple(requests)))
        for request in requests:
            await asyncio.sleep(0)
            yield request.id, self._answer(request)

    async def stream(
        self, model: ModelSpec, pool: Pool, request: InferenceRequest
    ) -> AsyncGenerator[Delta, None]:
        """The answer word by word; a scripted error comes instead of the first word."""
        self.calls.append((model, pool, (request,)))
        answer = self._answer(request)
        if not isinstance(answer, Completion):
            raise answer if isinstance(answer, EngineError) else TypeError("not a generation")
        usage, words = answer.usage, re.findall(r"\S+\s*|\s+", answer.text)
        for word in words:
            await asyncio.sleep(0)
            yield Delta(word, usage.prompt_tokens, 1)
        left = usage.completion_tokens - len(words)
        yield Delta("", usage.prompt_tokens, left, answer.finish_reason, usage.cached_tokens)

    def _answer(self, request: InferenceRequest) -> Answer:
        if isinstance(self._script, Mapping):
            return self._script.get(request.id) or echoed(request)
        return self._script(request)


class RecordingTelemetry:
    """Keeps what it was told, as (event, arguments) in the order of the calls."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[Any, ...]]] = []

    def of(self, event: str) -> list[tuple[Any, ...]]:
        """The arguments of all events of one name."""
        return [arguments for name, arguments in self.events if name == event]

    def submitted(self, job: Job) -> None:
        self.events.append(("submitted", (job,)))

    def ended(self, job: Job) -> None:
        self.events.append(("ended", (job,)))

    def batch_ran(self, batch: Batch, pool: Pool, seconds: float, errors: int) -> None:
        self.events.append(("batch_ran", (batch, pool, seconds, errors)))

    def answered(self, answered: Answered) -> None:
        self.events.append(("answered", (answered,)))

    def webhook_tried(self, delivery: Delivery) -> None:
        self.events.append(("webhook_tried", (delivery,)))

    def file_batch_ended(self, batch: FileBatch) -> None:
        self.events.append(("file_batch_ended", (batch,)))

    def pinged(self, health: WorkerHealth) -> None:
        self.events.append(("pinged", (health,)))

    def swept(self, remedies: Mapping[str, int]) -> None:
        self.events.append(("swept", (dict(remedies),)))

    def queue_depth(self, depth: Mapping[Priority, int]) -> None:
        self.events.append(("queue_depth", (dict(depth),)))

    def pool_sized(self, pool: str, desired: int, ready: int, starting: int) -> None:
        self.events.append(("pool_sized", (pool, desired, ready, starting)))

    def scaled(self, decision: ScalingDecision) -> None:
        self.events.append(("scaled", (decision,)))

    def cold_started(self, model: str, pool: str, seconds: float) -> None:
        self.events.append(("cold_started", (model, pool, seconds)))
