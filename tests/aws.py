"""AWS in this process: moto, its resources made from the template's own properties."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import boto3
from botocore.config import Config
from moto import mock_aws
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.dynamodb.models import dynamodb_backends

from synapse.domain.job import Priority
from tests.infra.translation import TEMPLATE, read

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.client import DynamoDBClient
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_sqs.client import SQSClient
    from mypy_boto3_stepfunctions.client import SFNClient

REGION = "us-east-1"
ROLE_ARN = "arn:aws:iam::123456789012:role/batcher"
TABLE_PROPERTIES = ("AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")
NO_RETRIES = Config(region_name=REGION, retries={"total_max_attempts": 1})


@dataclass(frozen=True)
class Aws:
    """Clients and the names of what there is."""

    dynamodb: DynamoDBClient
    s3: S3Client
    sqs: SQSClient
    stepfunctions: SFNClient
    jobs_table: str = "jobs"
    registry_table: str = "registry"
    files_table: str = "files"
    access_table: str = "access"
    webhooks_table: str = "webhooks"
    bucket: str = "blobs"

    def environ(self, **more: str) -> dict[str, str]:
        """The variables of a function that has all of it but the webhooks' table, and more."""
        return {
            "SYNAPSE_JOBS_TABLE": self.jobs_table,
            "SYNAPSE_REGISTRY_TABLE": self.registry_table,
            "SYNAPSE_FILES_TABLE": self.files_table,
            "SYNAPSE_ACCESS_TABLE": self.access_table,
            "SYNAPSE_BLOB_BUCKET": self.bucket,
            **more,
        }

    def queues(self) -> dict[Priority, str]:
        """The URL of each priority's queue, made on the first call."""
        return {
            priority: self.sqs.create_queue(QueueName=priority.value)["QueueUrl"]
            for priority in Priority
        }

    def state_machine(self) -> str:
        """The ARN of an Express state machine that moto does not run."""
        definition = '{"StartAt": "End", "States": {"End": {"Type": "Succeed"}}}'
        machine = self.stepfunctions.create_state_machine(
            name="batcher", definition=definition, roleArn=ROLE_ARN, type="EXPRESS"
        )
        return machine["stateMachineArn"]


@contextmanager
def aws() -> Iterator[Aws]:
    """A fresh AWS with the template's tables and an empty bucket."""
    # Moto would also make ready to answer `requests`, by thousands of patterns; nobody uses that.
    with patch("moto.core.models.RESPONSES_METHODS", ()), mock_aws():
        clients = _clients()
        _dynamodb_tables().update(copy.deepcopy(_empty_tables()))
        clients.s3.create_bucket(Bucket=clients.bucket)
        yield clients


@cache
def _empty_tables() -> Mapping[str, Any]:
    """Each is made once, as the template has it: copies of it are there ten times as soon."""
    clients = _clients()
    names = {
        "JobsTable": clients.jobs_table,
        "RegistryTable": clients.registry_table,
        "FilesTable": clients.files_table,
        "AccessTable": clients.access_table,
        "WebhooksTable": clients.webhooks_table,
    }
    for resource, name in names.items():
        clients.dynamodb.create_table(**_table(resource, name))
    return copy.deepcopy(dict(_dynamodb_tables()))


def _dynamodb_tables() -> dict[str, Any]:
    """Moto's own, by name."""
    tables: dict[str, Any] = dynamodb_backends[DEFAULT_ACCOUNT_ID][REGION].tables
    return tables


@cache
def _clients() -> Aws:
    return Aws(
        dynamodb=one_at_a_time(boto3.client("dynamodb", config=NO_RETRIES)),
        s3=one_at_a_time(boto3.client("s3", config=NO_RETRIES)),
        sqs=one_at_a_time(boto3.client("sqs", config=NO_RETRIES)),
        stepfunctions=one_at_a_time(boto3.client("stepfunctions", config=NO_RETRIES)),
    )


def _table(resource: str, name: str) -> dict[str, Any]:
    properties = _template()["Resources"][resource]["Properties"]
    kept = {key: properties[key] for key in TABLE_PROPERTIES if key in properties}
    return {"TableName": name, "BillingMode": "PAY_PER_REQUEST", **kept}


@cache
def _template() -> dict[str, Any]:
    return read(TEMPLATE)


def one_at_a_time(client: Any) -> Any:
    """The client, its calls serialised: AWS's conditional writes are atomic, moto's are not."""
    lock, make_call = threading.Lock(), client._make_api_call

    def locked(operation: str, arguments: dict[str, Any]) -> Any:
        with lock:
            return make_call(operation, arguments)

    client._make_api_call = locked
    return client


Call = Callable[[str, dict[str, Any]], Any]


@contextmanager
def intercepted(client: Any, around: Callable[[Call, str, dict[str, Any]], Any]) -> Iterator[None]:
    """Pass the client's calls through `around(call, operation, arguments)` for a while."""
    make_call = client._make_api_call
    client._make_api_call = lambda operation, arguments: around(make_call, operation, arguments)
    try:
        yield
    finally:
        client._make_api_call = make_call
