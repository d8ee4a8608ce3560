"""How the contract suites open each adapter: one line here puts an adapter under every suite.

An opener takes the test's clock and an empty folder, and is an async context manager.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from synapse.adapters.aws.blobs import S3BlobStore
from synapse.adapters.aws.idle_meter import DynamoIdleMeter
from synapse.adapters.aws.in_flight import DynamoInFlight
from synapse.adapters.aws.jobs import DynamoJobStore
from synapse.adapters.aws.keys import DynamoKeyStore
from synapse.adapters.aws.profiles import DynamoProfileStore
from synapse.adapters.aws.queue import SqsJobQueue
from synapse.adapters.aws.registry import DynamoRegistry
from synapse.adapters.aws.starter import StepFunctionsBatchStarter
from synapse.adapters.aws.usage import DynamoUsageStore
from synapse.adapters.aws.workers import DynamoWorkerRegistry
from synapse.adapters.codec import message_from_json
from synapse.adapters.local.access_database import AccessDatabase
from synapse.adapters.local.batch_starter import InProcessBatchStarter
from synapse.adapters.local.blobs import FolderBlobStore
from synapse.adapters.local.database import Database
from synapse.adapters.local.idle_meter import LocalIdleMeter
from synapse.adapters.local.job_store import SqliteJobStore
from synapse.adapters.local.keys import SqliteKeyStore
from synapse.adapters.local.profiles import SqliteProfileStore
from synapse.adapters.local.queue import LocalJobQueue
from synapse.adapters.local.registry import LocalRegistry
from synapse.adapters.local.slots import SlotLedger
from synapse.adapters.local.usage import SqliteUsageStore
from synapse.adapters.local.workers import LocalWorkerRegistry
from synapse.domain.batching import JobMessage
from synapse.domain.job import SlaTier
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse.ports import (
    BatchOrder,
    BatchStarter,
    BlobStore,
    IdleMeter,
    InFlight,
    JobQueue,
    JobStore,
    KeyStore,
    ProfileStore,
    Registry,
    UsageStore,
    WorkerRegistry,
)
from tests.aws import Aws, Call, aws, intercepted
from tests.factories import a_chat_model, a_model, a_pool
from tests.fake_keys import MemoryKeyStore
from tests.fake_profiles import MemoryProfileStore
from tests.fake_usage import MemoryUsageStore
from tests.fakes import (
    FakeClock,
    MemoryBlobStore,
    MemoryJobQueue,
    MemoryJobStore,
    MemoryRegistry,
    RecordingBatchStarter,
)
from tests.orders import order_of

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


@dataclass(frozen=True)
class UsageCase:
    """A usage store, and the job store that counts the ends of jobs into it."""

    usage: UsageStore
    jobs: JobStore


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


@asynccontextmanager
async def sqlite_job_store(clock: FakeClock, folder: Path) -> AsyncIterator[JobStore]:
    # A cache of hardly anything, so that every suite also goes the way through the database.
    database = Database.open(folder / "jobs.db")
    store = SqliteJobStore(database, clock, cache_bytes=4096)
    yield store
    await store.aclose()
    await database.close()


@asynccontextmanager
async def local_job_queue(clock: FakeClock, folder: Path) -> AsyncIterator[QueueCase]:
    queue = LocalJobQueue()

    async def receive() -> list[JobMessage]:
        return [each for tier in SlaTier for each in queue.take("echo", tier, 1000)]

    yield QueueCase(queue, receive)


@asynccontextmanager
async def folder_blob_store(clock: FakeClock, folder: Path) -> AsyncIterator[BlobStore]:
    yield FolderBlobStore(folder / "blobs")


@asynccontextmanager
async def local_registry(clock: FakeClock, folder: Path) -> AsyncIterator[Registry]:
    database = Database.open(folder / "jobs.db")
    yield LocalRegistry(MODELS, {model.name: POOLS for model in MODELS}, database)
    await database.close()


@asynccontextmanager
async def slot_ledger(clock: FakeClock, folder: Path) -> AsyncIterator[InFlight]:
    yield SlotLedger(clock)


@asynccontextmanager
async def local_worker_registry(clock: FakeClock, folder: Path) -> AsyncIterator[WorkerRegistry]:
    yield LocalWorkerRegistry()


@asynccontextmanager
async def dynamo_worker_registry(clock: FakeClock, folder: Path) -> AsyncIterator[WorkerRegistry]:
    with aws() as clients:
        yield DynamoWorkerRegistry(clients.dynamodb, clients.registry_table)


@asynccontextmanager
async def memory_profile_store(clock: FakeClock, folder: Path) -> AsyncIterator[ProfileStore]:
    yield MemoryProfileStore()


@asynccontextmanager
async def sqlite_profile_store(clock: FakeClock, folder: Path) -> AsyncIterator[ProfileStore]:
    database = Database.open(folder / "jobs.db")
    yield await SqliteProfileStore.open(database)
    await database.close()


@asynccontextmanager
async def dynamo_profile_store(clock: FakeClock, folder: Path) -> AsyncIterator[ProfileStore]:
    with aws() as clients:
        yield DynamoProfileStore(clients.dynamodb, clients.registry_table, clock=clock)


@asynccontextmanager
async def memory_key_store(clock: FakeClock, folder: Path) -> AsyncIterator[KeyStore]:
    yield MemoryKeyStore()


@asynccontextmanager
async def sqlite_key_store(clock: FakeClock, folder: Path) -> AsyncIterator[KeyStore]:
    database = AccessDatabase.open(folder / "access.db")
    yield SqliteKeyStore(database)
    await database.close()


@asynccontextmanager
async def dynamo_key_store(clock: FakeClock, folder: Path) -> AsyncIterator[KeyStore]:
    with aws() as clients:
        yield DynamoKeyStore(clients.dynamodb, clients.access_table)


@asynccontextmanager
async def memory_usage(clock: FakeClock, folder: Path) -> AsyncIterator[UsageCase]:
    usage = MemoryUsageStore()
    yield UsageCase(usage, MemoryJobStore(clock, usage=usage))


@asynccontextmanager
async def sqlite_usage(clock: FakeClock, folder: Path) -> AsyncIterator[UsageCase]:
    database = Database.open(folder / "jobs.db")
    jobs, usage = SqliteJobStore(database, clock), SqliteUsageStore(database)
    yield UsageCase(usage, jobs)
    await jobs.aclose()
    await usage.aclose()
    await database.close()


@asynccontextmanager
async def dynamo_usage(clock: FakeClock, folder: Path) -> AsyncIterator[UsageCase]:
    with aws() as clients:
        table = clients.access_table
        jobs = DynamoJobStore(clients.dynamodb, clients.jobs_table, clock=clock, usage_table=table)
        yield UsageCase(DynamoUsageStore(clients.dynamodb, table), jobs)


@asynccontextmanager
async def local_idle_meter(clock: FakeClock, folder: Path) -> AsyncIterator[IdleMeter]:
    yield LocalIdleMeter(clock)


@asynccontextmanager
async def dynamo_idle_meter(clock: FakeClock, folder: Path) -> AsyncIterator[IdleMeter]:
    with aws() as clients:
        yield DynamoIdleMeter(clients.dynamodb, clients.registry_table)


@asynccontextmanager
async def dynamo_in_flight(clock: FakeClock, folder: Path) -> AsyncIterator[InFlight]:
    with aws() as clients:
        yield DynamoInFlight(clients.dynamodb, clients.registry_table, clock=clock)


@asynccontextmanager
async def in_process_batch_starter(clock: FakeClock, folder: Path) -> AsyncIterator[StarterCase]:
    ran: list[BatchOrder] = []

    async def run(order: BatchOrder) -> None:
        ran.append(order)

    starter = InProcessBatchStarter(run, SlotLedger(clock))

    async def taken() -> list[BatchOrder]:
        await asyncio.sleep(0)
        return ran

    yield StarterCase(starter, taken)
    await starter.close(drain_s=1.0)


@asynccontextmanager
async def dynamo_job_store(clock: FakeClock, folder: Path) -> AsyncIterator[JobStore]:
    with aws() as cloud:
        yield DynamoJobStore(cloud.dynamodb, cloud.jobs_table, clock=clock)


@asynccontextmanager
async def sqs_job_queue(clock: FakeClock, folder: Path) -> AsyncIterator[QueueCase]:
    with aws() as cloud:
        urls = cloud.queues()

        async def receive() -> list[JobMessage]:
            return [message for url in urls.values() for message in _drained(cloud, url)]

        yield QueueCase(SqsJobQueue(cloud.sqs, urls, clock=clock), receive)


def _drained(cloud: Aws, url: str) -> Iterator[JobMessage]:
    while received := cloud.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get(
        "Messages"
    ):
        for message in received:
            cloud.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            yield message_from_json(message["Body"])


@asynccontextmanager
async def s3_blob_store(clock: FakeClock, folder: Path) -> AsyncIterator[BlobStore]:
    with aws() as cloud:
        yield S3BlobStore(cloud.s3, cloud.bucket)


@asynccontextmanager
async def dynamo_registry(clock: FakeClock, folder: Path) -> AsyncIterator[Registry]:
    with aws() as cloud:
        yield DynamoRegistry(cloud.dynamodb, cloud.registry_table, MODELS, POOLS, clock=clock)


@asynccontextmanager
async def step_functions_starter(clock: FakeClock, folder: Path) -> AsyncIterator[StarterCase]:
    with aws() as cloud:
        arn = cloud.state_machine()

        async def taken() -> list[BatchOrder]:
            return [
                order_of(event)
                for arguments in inputs
                for event in json.loads(arguments)["batches"]
            ]

        inputs: list[str] = []

        def noted(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
            answer = call(operation, arguments)
            inputs.append(arguments["input"])
            return answer

        with intercepted(cloud.stepfunctions, noted):
            yield StarterCase(StepFunctionsBatchStarter(cloud.stepfunctions, arn), taken)


# The adapters under test. Add yours to the right table: nothing else is needed.
JOB_STORES: dict[str, Opener[JobStore]] = {
    "memory": memory_job_store,
    "sqlite": sqlite_job_store,
    "dynamodb": dynamo_job_store,
}
JOB_QUEUES: dict[str, Opener[QueueCase]] = {
    "memory": memory_job_queue,
    "local": local_job_queue,
    "sqs": sqs_job_queue,
}
BLOB_STORES: dict[str, Opener[BlobStore]] = {
    "memory": memory_blob_store,
    "folder": folder_blob_store,
    "s3": s3_blob_store,
}
REGISTRIES: dict[str, Opener[Registry]] = {
    "memory": memory_registry,
    "local": local_registry,
    "dynamodb": dynamo_registry,
}
BATCH_STARTERS: dict[str, Opener[StarterCase]] = {
    "recording": recording_batch_starter,
    "in_process": in_process_batch_starter,
    "step-functions": step_functions_starter,
}
IN_FLIGHT: dict[str, Opener[InFlight]] = {
    "ledger": slot_ledger,
    "dynamodb": dynamo_in_flight,
}
USAGE_STORES: dict[str, Opener[UsageCase]] = {
    "memory": memory_usage,
    "sqlite": sqlite_usage,
    "dynamodb": dynamo_usage,
}
IDLE_METERS: dict[str, Opener[IdleMeter]] = {
    "local": local_idle_meter,
    "dynamodb": dynamo_idle_meter,
}
WORKER_REGISTRIES: dict[str, Opener[WorkerRegistry]] = {
    "local": local_worker_registry,
    "dynamodb": dynamo_worker_registry,
}
PROFILE_STORES: dict[str, Opener[ProfileStore]] = {
    "memory": memory_profile_store,
    "sqlite": sqlite_profile_store,
    "dynamodb": dynamo_profile_store,
}
KEY_STORES: dict[str, Opener[KeyStore]] = {
    "memory": memory_key_store,
    "sqlite": sqlite_key_store,
    "dynamodb": dynamo_key_store,
}
