"""How the contract suites open each adapter: one line here puts an adapter under every suite.

An opener takes the test's clock and an empty folder, and is an async context manager.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from synapse.domain.batching import JobMessage
from synapse.domain.model import ModelSpec, Pool
from synapse.ports import BatchOrder, BatchStarter, BlobStore, JobQueue, JobStore, Registry
from tests.factories import a_chat_model, a_model, a_pool
from tests.fakes import (
    FakeClock,
    MemoryBlobStore,
    MemoryJobQueue,
    MemoryJobStore,
    MemoryRegistry,
    RecordingBatchStarter,
)

MODELS: Sequence[ModelSpec] = (a_chat_model("smollm2"), a_model("echo"))
"""The catalogue that every registry under test serves."""

POOLS: Sequence[Pool] = (a_pool("gpu", accelerator="gpu"), a_pool("cpu"))
"""The pools that serve each of MODELS, first choice first."""


@dataclass(frozen=True)
class QueueCase:
    """A queue, and how a test receives (and removes) all that waits in it."""

    queue: JobQueue
    receive: Callable[[], Awaitable[list[JobMessage]]]


@dataclass(frozen=True)
class StarterCase:
    """A batch starter, and how a test sees the orders that its batcher has taken."""

    starter: BatchStarter
    taken: Callable[[], Awaitable[list[BatchOrder]]]


T = TypeVar("T")
Opener = Callable[[FakeClock, Path], AbstractAsyncContextManager[T]]


@asynccontextmanager
async def memory_job_store(clock: FakeClock, folder: Path) -> AsyncIterator[JobStore]:
    yield MemoryJobStore(clock)


@asynccontextmanager
async def memory_job_queue(clock: FakeClock, folder: Path) -> AsyncIterator[QueueCase]:
    queue = MemoryJobQueue()

    async def receive() -> list[JobMessage]:
        return queue.take()

    yield QueueCase(queue, receive)


@asynccontextmanager
async def memory_blob_store(clock: FakeClock, folder: Path) -> AsyncIterator[BlobStore]:
    yield MemoryBlobStore()


@asynccontextmanager
async def memory_registry(clock: FakeClock, folder: Path) -> AsyncIterator[Registry]:
    yield MemoryRegistry(MODELS, POOLS)


@asynccontextmanager
async def recording_batch_starter(clock: FakeClock, folder: Path) -> AsyncIterator[StarterCase]:
    starter = RecordingBatchStarter()

    async def taken() -> list[BatchOrder]:
        return starter.orders

    yield StarterCase(starter, taken)


# The adapters under test. Add yours to the right table: nothing else is needed.
JOB_STORES: dict[str, Opener[JobStore]] = {
    "memory": memory_job_store,
}
JOB_QUEUES: dict[str, Opener[QueueCase]] = {
    "memory": memory_job_queue,
}
BLOB_STORES: dict[str, Opener[BlobStore]] = {
    "memory": memory_blob_store,
}
REGISTRIES: dict[str, Opener[Registry]] = {
    "memory": memory_registry,
}
BATCH_STARTERS: dict[str, Opener[StarterCase]] = {
    "recording": recording_batch_starter,
}
