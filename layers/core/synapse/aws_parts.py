"""The adapters of the AWS target, each made when it is first asked for.

So a function pays only for what it uses, and needs only the rights of what it uses.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from synapse.adapters.aws.blobs import S3BlobStore
from synapse.adapters.aws.capacity import AwsCapacity
from synapse.adapters.aws.cognito import ANYBODYS, CognitoAccounts
from synapse.adapters.aws.demand import DynamoDemand, DynamoStartTimes, LambdaWaker
from synapse.adapters.aws.file_batch_starter import StepFunctionsFileBatchStarter
from synapse.adapters.aws.file_batches import DynamoFileBatchStore
from synapse.adapters.aws.files import DynamoFileStore, DynamoUploadStore
from synapse.adapters.aws.idle_meter import DynamoIdleMeter
from synapse.adapters.aws.in_flight import DynamoInFlight
from synapse.adapters.aws.jobs import DynamoJobStore
from synapse.adapters.aws.keys import DynamoKeyStore
from synapse.adapters.aws.links import SIGNING, S3Links
from synapse.adapters.aws.meter import DynamoMeter
from synapse.adapters.aws.open_jobs import OpenJobs
from synapse.adapters.aws.profiles import DynamoProfileStore
from synapse.adapters.aws.queue import SqsJobQueue
from synapse.adapters.aws.registry import DynamoRegistry
from synapse.adapters.aws.runners import RunnerEngine, RunnerEnvironments
from synapse.adapters.aws.starter import StepFunctionsBatchStarter
from synapse.adapters.aws.usage import DynamoUsageStore
from synapse.adapters.aws.webhooks import (
    DynamoDeliveryStore,
    DynamoEndpointStore,
    SqsDeliveryQueue,
)
from synapse.adapters.aws.workers import DynamoWorkerRegistry
from synapse.adapters.catalogue import load_catalogue
from synapse.settings import Settings

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_lambda.client import LambdaClient
    from mypy_boto3_s3.client import S3Client

    from synapse.domain.errors import EngineError
    from synapse.domain.inference import Delta, Result
    from synapse.domain.job import JobId
    from synapse.domain.model import ModelSpec
    from synapse.domain.pool import Pool
    from synapse.ports import InferenceRequest, StreamingEngine

CLIENT_CONFIG = Config(
    connect_timeout=2,
    read_timeout=10,
    max_pool_connections=32,
    retries={"mode": "standard", "total_max_attempts": 4},
)


class Parts:
    """What the use cases stand on."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def jobs(self) -> DynamoJobStore:
        """They settle themselves what a job has reserved when it ends."""
        settings = self.settings
        return DynamoJobStore(
            self._dynamodb,
            settings.jobs_table,
            usage_table=settings.access_table,
            meter=self.meter,
        )

    @cached_property
    def usage(self) -> DynamoUsageStore:
        return DynamoUsageStore(self._dynamodb, self.settings.access_table)

    @cached_property
    def idle(self) -> DynamoIdleMeter:
        return DynamoIdleMeter(self._dynamodb, self.settings.registry_table)

    @cached_property
    def queue(self) -> SqsJobQueue:
        return SqsJobQueue(boto3.client("sqs", config=CLIENT_CONFIG), self.settings.queue_urls)

    @cached_property
    def endpoints(self) -> DynamoEndpointStore:
        return DynamoEndpointStore(self._dynamodb, self.settings.webhooks_table)

    @cached_property
    def deliveries(self) -> DynamoDeliveryStore:
        return DynamoDeliveryStore(self._dynamodb, self.settings.webhooks_table)

    @cached_property
    def delivery_queue(self) -> SqsDeliveryQueue:
        client = boto3.client("sqs", config=CLIENT_CONFIG)
        return SqsDeliveryQueue(client, self.settings.webhook_queue_url)

    @cached_property
    def blobs(self) -> S3BlobStore:
        return S3BlobStore(self._s3, self.settings.blob_bucket)

    @cached_property
    def links(self) -> S3Links:
        return S3Links(self._s3, self.settings.blob_bucket)

    @cached_property
    def files(self) -> DynamoFileStore:
        return DynamoFileStore(self._dynamodb, self.settings.files_table)

    @cached_property
    def uploads(self) -> DynamoUploadStore:
        return DynamoUploadStore(self._dynamodb, self.settings.files_table)

    @cached_property
    def file_batches(self) -> DynamoFileBatchStore:
        return DynamoFileBatchStore(self._dynamodb, self.settings.files_table)

    @cached_property
    def keys(self) -> DynamoKeyStore:
        return DynamoKeyStore(self._dynamodb, self.settings.access_table)

    @cached_property
    def file_batch_starter(self) -> StepFunctionsFileBatchStarter:
        client = boto3.client("stepfunctions", config=CLIENT_CONFIG)
        return StepFunctionsFileBatchStarter(client, self.settings.file_batcher_arn)

    @cached_property
    def batch_starter(self) -> StepFunctionsBatchStarter:
        client = boto3.client("stepfunctions", config=CLIENT_CONFIG)
        return StepFunctionsBatchStarter(client, self.settings.batcher_arn)

    @cached_property
    def registry(self) -> DynamoRegistry:
        return DynamoRegistry(
            self._dynamodb, self.settings.registry_table, load_catalogue(), self.settings.pools
        )

    @cached_property
    def workers(self) -> DynamoWorkerRegistry:
        return DynamoWorkerRegistry(self._dynamodb, self.settings.registry_table)

    @cached_property
    def profiles(self) -> DynamoProfileStore:
        return DynamoProfileStore(self._dynamodb, self.settings.registry_table)

    @cached_property
    def meter(self) -> DynamoMeter:
        return DynamoMeter(self._dynamodb, self.settings.access_table)

    @cached_property
    def in_flight(self) -> DynamoInFlight:
        return DynamoInFlight(self._dynamodb, self.settings.registry_table)

    @cached_property
    def capacity(self) -> AwsCapacity:
        ecs = boto3.client("ecs", config=CLIENT_CONFIG)
        return AwsCapacity(
            ecs, self._functions, self.settings.capacities, self.workers, clock=time.time
        )

    @cached_property
    def demand(self) -> DynamoDemand:
        return DynamoDemand(OpenJobs(self._dynamodb, self.settings.jobs_table), self.registry)

    @cached_property
    def start_times(self) -> DynamoStartTimes:
        return DynamoStartTimes(self._dynamodb, self.settings.registry_table)

    @cached_property
    def waker(self) -> LambdaWaker:
        return LambdaWaker(self._functions, self.settings.scaler)

    @cached_property
    def accounts(self) -> CognitoAccounts | None:
        """Who may log in with a password, if anybody."""
        client_id = self.settings.cognito_client_id
        if not client_id:
            return None
        client = boto3.client("cognito-idp", config=CLIENT_CONFIG.merge(ANYBODYS))
        return CognitoAccounts(client, client_id)

    @cached_property
    def environments(self) -> RunnerEnvironments:
        return RunnerEnvironments(self._runners)

    @cached_property
    def probes(self) -> RunnerEngine:
        """For pings: workers that this function cannot reach are asked through their runners."""
        return RunnerEngine(self._runners, self.engine)

    @cached_property
    def engine(self) -> StreamingEngine:
        """Triton's; nothing of it is loaded before it is called."""
        return _EngineOnDemand(lambda: self._triton)

    @cached_property
    def _triton(self) -> StreamingEngine:
        # Only the functions with the engine layer can import this.
        from synapse.adapters.triton.engine import TritonEngine

        return TritonEngine()

    @cached_property
    def _dynamodb(self) -> DynamoDBClient:
        return boto3.client("dynamodb", config=CLIENT_CONFIG)

    @cached_property
    def _s3(self) -> S3Client:
        return boto3.client("s3", config=CLIENT_CONFIG.merge(SIGNING))

    @cached_property
    def _functions(self) -> LambdaClient:
        return boto3.client("lambda", config=CLIENT_CONFIG)

    @cached_property
    def _runners(self) -> LambdaClient:
        # A runner answers when it is done, and is not asked twice.
        waits = Config(read_timeout=60, retries={"total_max_attempts": 1})
        return boto3.client("lambda", config=CLIENT_CONFIG.merge(waits))


class _EngineOnDemand:
    """The engine, made when it is first asked: a function without the engine's layer never does."""

    def __init__(self, engine: Callable[[], StreamingEngine]) -> None:
        self._engine = engine

    def infer(
        self, model: ModelSpec, pool: Pool, requests: Sequence[InferenceRequest]
    ) -> AsyncGenerator[tuple[JobId, Result | EngineError], None]:
        return self._engine().infer(model, pool, requests)

    async def answer(self, model: ModelSpec, pool: Pool, request: InferenceRequest) -> Result:
        return await self._engine().answer(model, pool, request)

    def stream(
        self, model: ModelSpec, pool: Pool, request: InferenceRequest
    ) -> AsyncGenerator[Delta, None]:
        return self._engine().stream(model, pool, request)
