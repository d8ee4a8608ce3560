"""What the use cases need of the world outside, named by need; adapters implement these.

All calls are coroutines: on one machine they never block the event loop; on AWS, where a
function handles one request at a time, an adapter may simply block inside them.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from synapse.domain.batching import Batch, JobMessage
from synapse.domain.errors import EngineError
from synapse.domain.estimate import ServiceRate
from synapse.domain.inference import Delta, ModelInput, Result
from synapse.domain.job import Failure, Job, JobId, JobState, Lease, Outcome, Priority
from synapse.domain.model import ModelSpec, Pool, ServiceSample, WorkerHealth

Clock = Callable[[], float]
"""Seconds since the epoch, UTC."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A caller's key for one request, and a fingerprint of the request's body."""

    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Created:
    """The job of a request: a new one, or the one an earlier request with the same key made."""

    job: Job
    is_new: bool


class JobStore(Protocol):
    """The truth about jobs. Every change is conditional on the state the job is in.

    A change that is refused because the job has moved on returns None (or leaves the job out);
    that is the ordinary fate of duplicates, not an error.
    """

    async def create(self, job: Job, idempotency: Idempotency | None = None) -> Created:
        """Record a new job durably before returning.

        Raises:
            IdempotencyConflict: the key was used before with another fingerprint.
            ValueError: the id is taken.
        """
        ...

    async def create_many(self, jobs: Sequence[Job]) -> None:
        """Record several new jobs durably before returning; after an error none of them runs."""
        ...

    async def get(self, job_id: JobId) -> Job | None:
        """The job, or None if there is none (or its retention has passed)."""
        ...

    async def claim(self, job_ids: Sequence[JobId], lease: Lease, now: float) -> list[Job]:
        """Take the jobs that may be taken (`Job.can_be_claimed`), in the order asked."""
        ...

    async def settle(self, outcome: Outcome, owner: str, now: float) -> Job | None:
        """Write a running job's end, if `owner` still holds its lease; durable on return."""
        ...

    async def close(
        self, job_id: JobId, state: JobState, failure: Failure | None, now: float
    ) -> Job | None:
        """End an open job from outside, whoever runs it; durable on return."""
        ...

    async def requeue(self, job: Job, now: float, *, lost: bool) -> Job | None:
        """Put `job` back to QUEUED (`Job.requeued`) if it still stands exactly as given.

        "As given" is the same state, lease owner and number of sends: whoever looked at an
        outdated job changes nothing.
        """
        ...

    async def due(self, now: float, limit: int) -> list[Job]:
        """Open jobs that the sweeper should look at (`Job.due_at` ≤ now), earliest first."""
        ...

    async def watch(self, job_id: JobId, timeout_s: float) -> None:
        """Return when the job may have ended, or after `timeout_s` at the latest."""
        ...


class JobQueue(Protocol):
    """Carries the news that a job waits. At least once, in no guaranteed order."""

    async def send(self, messages: Sequence[JobMessage]) -> None:
        """Enqueue all messages.

        Raises:
            Unavailable: some message could not be sent.
        """
        ...

    async def depth(self, model: str) -> Mapping[Priority, int]:
        """Jobs waiting per priority; a queue that cannot tell models apart counts them all."""
        ...


class BlobStore(Protocol):
    """Bytes too large for a record."""

    async def put(self, key: str, data: bytes) -> None:
        """Store `data` durably under `key`, replacing what was there."""
        ...

    async def get(self, key: str) -> bytes:
        """The bytes under `key`.

        Raises:
            KeyError: there are none.
        """
        ...

    async def delete(self, key: str) -> None:
        """Forget `key`; unknown keys are ignored."""
        ...


class Registry(Protocol):
    """What is served and how it is doing."""

    async def models(self) -> Sequence[ModelSpec]:
        """All served models, by name."""
        ...

    async def model(self, name: str) -> ModelSpec | None:
        """The model of that name, or None."""
        ...

    async def pools(self, model: str) -> Sequence[Pool]:
        """The pools that serve a model: the first choice, then the fallbacks in order."""
        ...

    async def record_service(self, sample: ServiceSample, now: float) -> None:
        """Add to what was measured of a model's speed."""
        ...

    async def service_rate(self, model: str, now: float) -> ServiceRate:
        """What was measured of a model lately (the last few minutes with any work in them)."""
        ...

    async def record_health(self, health: WorkerHealth) -> None:
        """Remember what the pinger saw."""
        ...

    async def health(self) -> Sequence[WorkerHealth]:
        """The last that was seen of every (model, pool)."""
        ...


@dataclass(frozen=True, slots=True)
class BatchOrder:
    """A batch and the pools that may run it, first choice first."""

    batch: Batch
    pools: tuple[Pool, ...]


class BatchStarter(Protocol):
    """Hands batches to the batcher: a state machine on AWS, tasks on one machine."""

    async def start(self, orders: Sequence[BatchOrder]) -> None:
        """Return once the batcher has taken all the orders.

        Raises:
            Unavailable: it did not take them all. Those it took run; ordering their jobs again
                does no harm, since a job that runs is given to no other batch.
        """
        ...


@dataclass(frozen=True, slots=True)
class InferenceRequest:
    """One item for an engine; `timeout_s` is all the time it has."""

    id: JobId
    timeout_s: float
    input: ModelInput
    priority: int = 0


class InferenceEngine(Protocol):
    """A worker that speaks the Open Inference Protocol as Triton does."""

    def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncIterator[tuple[JobId, Result | EngineError]]:
        """Run all requests concurrently; yield each one's outcome once, as it becomes known.

        Closing the iterator cancels what is unfinished at the engine. Never raises for an item:
        its error is its outcome.
        """
        ...


class StreamingEngine(InferenceEngine, Protocol):
    """A worker that also hands over a generation while it is being written."""

    def stream(
        self, model: ModelSpec, pool: Pool, request: InferenceRequest
    ) -> AsyncGenerator[Delta, None]:
        """One generation (one sample) as it is written; the last delta has a `finish_reason`.

        Closing the iterator cancels the generation at the engine.

        Raises:
            EngineError: the request is refused, or breaks off.
        """
        ...


class Telemetry(Protocol):
    """Counts and times for the operator. Never blocks, never raises, never sees a prompt."""

    def submitted(self, job: Job) -> None:
        """A job was accepted."""
        ...

    def ended(self, job: Job) -> None:
        """A job reached a final state."""
        ...

    def batch_ran(self, batch: Batch, pool: Pool, seconds: float, errors: int) -> None:
        """A batch came back from a pool."""
        ...

    def pinged(self, health: WorkerHealth) -> None:
        """A worker was tried."""
        ...

    def swept(self, remedies: Mapping[str, int]) -> None:
        """The sweeper went by; how often it applied each remedy."""
        ...

    def queue_depth(self, depth: Mapping[Priority, int]) -> None:
        """Jobs waiting per priority."""
        ...
