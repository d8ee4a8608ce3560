"""Wiring of the AWS target: the one place where its adapters meet the use cases.

Nothing happens at import. Each part is made when a function first needs it, so a function pays
only for what it uses and needs only the rights of what it uses.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import boto3
from botocore.config import Config

from synapse.adapters.aws.blobs import S3BlobStore
from synapse.adapters.aws.file_batch_starter import StepFunctionsFileBatchStarter
from synapse.adapters.aws.file_batches import DynamoFileBatchStore
from synapse.adapters.aws.files import DynamoFileStore, DynamoUploadStore
from synapse.adapters.aws.in_flight import DynamoInFlight
from synapse.adapters.aws.jobs import DynamoJobStore
from synapse.adapters.aws.links import SIGNING, S3Links
from synapse.adapters.aws.queue import SqsJobQueue
from synapse.adapters.aws.registry import DynamoRegistry
from synapse.adapters.aws.starter import StepFunctionsBatchStarter
from synapse.adapters.aws.workers import DynamoWorkerRegistry
from synapse.adapters.catalogue import load_catalogue
from synapse.adapters.telemetry.emf import EmfTelemetry
from synapse.adapters.telemetry.exposition import exposition
from synapse.api.app import create_api
from synapse.api.openai.lines import OpenAiLines
from synapse.api.resolver import Api
from synapse.api.services import Services
from synapse.application.advance import Advancer
from synapse.application.counted import CountedEngine
from synapse.application.direct import DirectLane
from synapse.application.dispatch import Dispatcher
from synapse.application.file_batches import FileBatches
from synapse.application.files import Files
from synapse.application.give_back import GiveBack
from synapse.application.line_tools import LineTools
from synapse.application.ping import Pinger
from synapse.application.response_cache import ResponseCache
from synapse.application.results import Results
from synapse.application.run_batch import BatchRunner
from synapse.application.submit import Submitter
from synapse.application.sweep import Sweeper
from synapse.application.uploads import Uploads
from synapse.domain.admission import Load
from synapse.domain.file_batch import Pace
from synapse.domain.job import JobId
from synapse.domain.pool import Pool
from synapse.ids import new_id
from synapse.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

    from synapse.domain.errors import EngineError
    from synapse.domain.inference import Delta, Result
    from synapse.domain.model import ModelSpec
    from synapse.ports import InferenceRequest, StreamingEngine

MAX_WAIT_S = 25.0
"""API Gateway gives up after 29 s."""

MAX_DIRECT_S = 880.0
"""The chat function has 900 s, as long as API Gateway streams at most."""

BATCH_PACE = Pace(min_s=2.0, max_s=60.0)
"""A day at the slowest is 1,440 turns of the state machine, of nine events each: it has 25,000."""

CLIENT_CONFIG = Config(
    connect_timeout=2,
    read_timeout=10,
    max_pool_connections=32,
    retries={"mode": "standard", "total_max_attempts": 4},
)

T = TypeVar("T")


@cache
def _loop() -> asyncio.Runner:
    return asyncio.Runner()


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the environment's one event loop, to which its gRPC channel belongs."""
    return _loop().run(work)


@cache
def target() -> Target:
    """The target of this environment."""
    return Target(Settings.load(os.environ))


class Target:
    """The use cases over AWS adapters."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.telemetry = EmfTelemetry(settings.service)

    @contextlib.contextmanager
    def telemetry_flushed(self) -> Iterator[None]:
        """Write the collected metrics at the end of an invocation, however it ends."""
        try:
            yield
        finally:
            self.telemetry.flush()

    @cached_property
    def api(self) -> Api:
        """The HTTP surface."""
        submitter = Submitter(
            self._store, self._queue, self._blobs, self._registry, self.telemetry, time.time, new_id
        )
        return create_api(
            Services(
                submitter=submitter,
                direct=self._direct,
                cache=ResponseCache(self._blobs, self._registry, time.time),
                results=Results(self._store, self._blobs, self.telemetry, time.time),
                registry=self._registry,
                files=self._files,
                uploads=self._uploads,
                batches=self.file_batches,
                file_link=S3Links(self._s3, self.settings.blob_bucket).link,
                default_model=self.settings.default_model,
                max_wait_s=MAX_WAIT_S,
                abort=_no_abort,
                metrics=self._metrics,
                max_direct_s=MAX_DIRECT_S,
            )
        )

    @cached_property
    def dispatcher(self) -> Dispatcher:
        """Plans and starts batches."""
        return Dispatcher(
            self._store, self._registry, self._starter, self.telemetry, time.time, new_id
        )

    def runner(self, lease_s: float) -> BatchRunner:
        """A runner whose leases last `lease_s` seconds."""
        return BatchRunner(
            self._store,
            self._blobs,
            self._registry,
            CountedEngine(self._engine, self._in_flight, time.time),
            self.telemetry,
            time.time,
            lease_s,
        )

    def pool(self, name: str) -> Pool:
        """The pool of that name.

        Raises:
            ValueError: there is none.
        """
        for pool in self.settings.pools:
            if pool.name == name:
                return pool
        raise ValueError(f"pool {name!r} is not in SYNAPSE_POOLS")

    @cached_property
    def give_back(self) -> GiveBack:
        """Gives back what no pool could run."""
        return GiveBack(self._store, self._queue, self.telemetry, time.time)

    @cached_property
    def sweeper(self) -> Sweeper:
        """Looks after stale jobs."""
        return Sweeper(self._store, self._queue, self.telemetry, time.time)

    @cached_property
    def pinger(self) -> Pinger:
        """Keeps workers warm."""
        client = boto3.client("dynamodb", config=CLIENT_CONFIG)
        workers = DynamoWorkerRegistry(client, self.settings.registry_table)
        return Pinger(
            self._registry, workers, self._engine, self._queue, self.telemetry, time.time
        )

    @cached_property
    def file_batches(self) -> FileBatches:
        """Takes in file batches."""
        starter = StepFunctionsFileBatchStarter(
            boto3.client("stepfunctions", config=CLIENT_CONFIG), self.settings.file_batcher_arn
        )
        endpoints = OpenAiLines.endpoints
        return FileBatches(self._file_batches, self._files, starter, endpoints, time.time, new_id)

    @cached_property
    def advancer(self) -> Advancer:
        """Drives file batches."""
        stores = (self._store, self._queue, self._blobs, self._blobs, self._registry)
        codec = OpenAiLines(self._registry)
        tools = LineTools(*stores, codec, self.telemetry, time.time, new_id, _no_abort)
        return Advancer(self._file_batches, self._files, tools, BATCH_PACE)

    @cached_property
    def _file_batches(self) -> DynamoFileBatchStore:
        client = boto3.client("dynamodb", config=CLIENT_CONFIG)
        return DynamoFileBatchStore(client, self.settings.files_table)

    @cached_property
    def _direct(self) -> DirectLane:
        return DirectLane(
            self._registry,
            _EngineOnDemand(lambda: self._engine),
            self._in_flight,
            self.telemetry,
            time.time,
        )

    @cached_property
    def _store(self) -> DynamoJobStore:
        client = boto3.client("dynamodb", config=CLIENT_CONFIG)
        return DynamoJobStore(client, self.settings.jobs_table)

    @cached_property
    def _queue(self) -> SqsJobQueue:
        return SqsJobQueue(boto3.client("sqs", config=CLIENT_CONFIG), self.settings.queue_urls)

    @cached_property
    def _s3(self) -> S3Client:
        return boto3.client("s3", config=CLIENT_CONFIG.merge(SIGNING))

    @cached_property
    def _blobs(self) -> S3BlobStore:
        return S3BlobStore(self._s3, self.settings.blob_bucket)

    @cached_property
    def _files(self) -> Files:
        client = boto3.client("dynamodb", config=CLIENT_CONFIG)
        store = DynamoFileStore(client, self.settings.files_table)
        return Files(store, self._blobs, time.time, new_id)

    @cached_property
    def _uploads(self) -> Uploads:
        client = boto3.client("dynamodb", config=CLIENT_CONFIG)
        store = DynamoUploadStore(client, self.settings.files_table)
        return Uploads(store, self._files, self._blobs, time.time, new_id)

    @cached_property
    def _registry(self) -> DynamoRegistry:
        return DynamoRegistry(
            boto3.client("dynamodb", config=CLIENT_CONFIG),
            self.settings.registry_table,
            load_catalogue(),
            self.settings.pools,
        )

    @cached_property
    def _in_flight(self) -> DynamoInFlight:
        client = boto3.client("dynamodb", config=CLIENT_CONFIG)
        return DynamoInFlight(client, self.settings.registry_table)

    @cached_property
    def _starter(self) -> StepFunctionsBatchStarter:
        client = boto3.client("stepfunctions", config=CLIENT_CONFIG)
        return StepFunctionsBatchStarter(client, self.settings.batcher_arn)

    @cached_property
    def _engine(self) -> StreamingEngine:
        # Only the functions with the engine layer can import this.
        from synapse.adapters.triton.engine import TritonEngine

        return TritonEngine()

    async def _metrics(self) -> str:
        depth = await self._queue.depth("")
        loads = {spec.name: await self._load(spec) for spec in await self._registry.models()}
        return exposition(await self._registry.health(), depth, loads)

    async def _load(self, spec: ModelSpec) -> Load:
        running = waiting = 0
        for pool in await self._registry.pools(spec.name):
            in_flight = await self._in_flight.count(spec.name, pool.name)
            load = Load.of(in_flight, pool.slots_of(spec))
            running, waiting = running + load.running, waiting + load.waiting
        return Load(running, waiting)


class _EngineOnDemand:
    """The engine, made when it is first asked: a function without the engine's layer never does."""

    def __init__(self, engine: Callable[[], StreamingEngine]) -> None:
        self._engine = engine

    def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Result | EngineError], None]:
        return self._engine().infer(model, pool, requests)

    def stream(
        self, model: ModelSpec, pool: Pool, request: InferenceRequest
    ) -> AsyncGenerator[Delta, None]:
        return self._engine().stream(model, pool, request)


def _no_abort(job_id: JobId) -> None:
    """The runner of a job is another Lambda: its late result is refused instead."""
