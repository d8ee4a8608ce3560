"""Where the lives are lived: real adapters over an emulated AWS, and over a SQLite file."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from synapse.adapters.aws.blobs import S3BlobStore
from synapse.adapters.aws.items import attributes, plain
from synapse.adapters.aws.jobs import DynamoJobStore
from synapse.adapters.aws.meter import DynamoMeter
from synapse.adapters.aws.queue import SqsJobQueue
from synapse.adapters.aws.registry import DynamoRegistry
from synapse.adapters.aws.starter import StepFunctionsBatchStarter
from synapse.adapters.aws.usage import DynamoUsageStore
from synapse.adapters.codec import message_from_json
from synapse.adapters.local.blobs import FolderBlobStore
from synapse.adapters.local.job_store import SqliteJobStore
from synapse.adapters.local.meter import SqliteMeter
from synapse.adapters.local.queue import LocalJobQueue
from synapse.adapters.local.registry import LocalRegistry
from synapse.adapters.local.usage import SqliteUsageStore
from synapse.domain.batching import JobMessage
from synapse.domain.job import SlaTier
from synapse.domain.metering import MeterId
from synapse.ports import (
    BatchOrder,
    BatchStarter,
    BlobStore,
    JobQueue,
    JobStore,
    Registry,
    UsageStore,
)
from synapse.ports.meter import Meter
from tests.aws import Aws, Call, aws, intercepted
from tests.factories import a_model, a_pool
from tests.fakes import FakeClock, RecordingBatchStarter
from tests.lives.trouble import Trouble, TroubledDatabase
from tests.orders import order_of
from tests.virtual_time import VirtualLoop

R = TypeVar("R")

MODEL = a_model("echo")
POOLS = (a_pool("gpu"), a_pool("cpu"))


@dataclass(frozen=True)
class Deployment:
    """Real adapters, and how a test sees what is in them.

    `receive` takes all messages out of the queue; `started` the orders that were begun since the
    last call; `under_way` says what a meter shows, and how many of its reservations are open.
    """

    jobs: JobStore
    queue: JobQueue
    blobs: BlobStore
    registry: Registry
    usage: UsageStore
    meter: Meter
    starter: BatchStarter
    receive: Callable[[], Awaitable[list[JobMessage]]]
    started: Callable[[], list[BatchOrder]]
    under_way: Callable[[MeterId], tuple[int, int]]


Open = Callable[[FakeClock, Trouble], AbstractAsyncContextManager[Deployment]]


class InlineLoop(VirtualLoop):
    """Does at once what it is to do in threads, so that a life can be lived again."""

    def run_in_executor(  # type: ignore[override] # no Executor is asked
        self, executor: object, func: Callable[..., R], *args: Any
    ) -> asyncio.Future[R]:
        future: asyncio.Future[R] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is the caller's
            future.set_exception(error)
        return future


@asynccontextmanager
async def on_aws(clock: FakeClock, trouble: Trouble) -> AsyncIterator[Deployment]:
    """Calls are made one after the other, and every one of them may have its fault."""
    with ExitStack() as stack:
        cloud = stack.enter_context(aws())
        urls, arn = cloud.queues(), cloud.state_machine()
        begun: list[str] = []

        def noted(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
            if operation == "StartExecution":
                begun.append(arguments["input"])
                arguments = {**arguments, "name": f"e{len(begun)}-{arguments['name']}"[:80]}
            return call(operation, arguments)

        stack.enter_context(intercepted(cloud.stepfunctions, noted))
        for client in (cloud.dynamodb, cloud.s3, cloud.sqs, cloud.stepfunctions):
            stack.enter_context(intercepted(client, trouble.around_aws))

        async def receive() -> list[JobMessage]:
            with trouble.put_off():
                return [message for url in urls.values() for message in _drained(cloud, url)]

        def started() -> list[BatchOrder]:
            events = [event for text in begun for event in json.loads(text)["batches"]]
            begun.clear()
            return [order_of(event) for event in events]

        def under_way(meter: MeterId) -> tuple[int, int]:
            with trouble.put_off():
                return _under_way(cloud, meter)

        db, access = cloud.dynamodb, cloud.access_table
        meter = DynamoMeter(db, access, clock=clock)
        yield Deployment(
            jobs=DynamoJobStore(db, cloud.jobs_table, clock=clock, usage_table=access, meter=meter),
            queue=SqsJobQueue(cloud.sqs, urls, clock=clock),
            blobs=S3BlobStore(cloud.s3, cloud.bucket),
            registry=DynamoRegistry(db, cloud.registry_table, [MODEL], POOLS, clock=clock),
            usage=DynamoUsageStore(db, access),
            meter=meter,
            starter=StepFunctionsBatchStarter(cloud.stepfunctions, arn),
            receive=receive,
            started=started,
            under_way=under_way,
        )


def _drained(cloud: Aws, url: str) -> Iterator[JobMessage]:
    while got := cloud.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in got:
            cloud.sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
            yield message_from_json(message["Body"])


def _under_way(cloud: Aws, meter: MeterId) -> tuple[int, int]:
    partition = f"meter#{meter.tenant}"
    page = cloud.dynamodb.query(
        TableName=cloud.access_table,
        KeyConditionExpression="pk = :pk",
        ExpressionAttributeValues=attributes({":pk": partition}),
    )
    items = {item["sk"]: item for item in map(plain, page["Items"])}
    shown = items.get(f"account#{meter.account}", {}).get("open", 0)
    return int(shown), sum(name.startswith("open#") for name in items)


@asynccontextmanager
async def on_sqlite(clock: FakeClock, trouble: Trouble) -> AsyncIterator[Deployment]:
    """Every transaction may have its fault."""
    with tempfile.TemporaryDirectory() as folder:
        database = TroubledDatabase.open(Path(folder, "jobs.db"))
        assert isinstance(database, TroubledDatabase)
        # A cache of hardly anything, so that records are also read from the file.
        jobs = SqliteJobStore(database, clock, cache_bytes=4096)
        meter = await SqliteMeter.open(database)
        usage, queue, starter = SqliteUsageStore(database), LocalJobQueue(), RecordingBatchStarter()
        database.trouble = trouble

        async def receive() -> list[JobMessage]:
            return [each for tier in SlaTier for each in queue.take("echo", tier, 1000)]

        def started() -> list[BatchOrder]:
            orders, starter.orders = starter.orders, []
            return orders

        def under_way(of: MeterId) -> tuple[int, int]:
            return meter._ledger.counts(of).open, len(meter.left_open())

        yield Deployment(
            jobs=jobs,
            queue=queue,
            blobs=FolderBlobStore(Path(folder, "blobs")),
            registry=LocalRegistry([MODEL], {MODEL.name: POOLS}, database),
            usage=usage,
            meter=meter,
            starter=starter,
            receive=receive,
            started=started,
            under_way=under_way,
        )
        database.trouble = None
        await meter.aclose()
        await usage.aclose()
        await jobs.aclose()
        await database.close()


DEPLOYMENTS: dict[str, Open] = {"aws": on_aws, "sqlite": on_sqlite}
