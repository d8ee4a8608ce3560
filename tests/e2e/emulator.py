"""MiniStack, the AWS emulator that the template is deployed to."""

from __future__ import annotations

import contextlib
import json
import os
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from tests.e2e.daemon import Daemon, running, venv_program
from tests.patience import PATIENCE_S
from tests.ports import free_port

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_ecs import ECSClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_scheduler import EventBridgeSchedulerClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_stepfunctions import SFNClient

REGION = "us-east-1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": REGION,
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@dataclass(frozen=True)
class Emulator:
    """A running MiniStack and clients of it."""

    port: int
    daemon: Daemon

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def python(self) -> Path:
        """The Python that runs the functions."""
        return venv_program("SYNAPSE_MINISTACK_VENV", ".venv-ministack", "python")

    @cached_property
    def session(self) -> boto3.Session:
        return boto3.Session(
            aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
            region_name=REGION,
        )

    @cached_property
    def dynamodb(self) -> DynamoDBClient:
        return self.session.client("dynamodb", endpoint_url=self.url)

    @cached_property
    def ecs(self) -> ECSClient:
        return self.session.client("ecs", endpoint_url=self.url)

    @cached_property
    def functions(self) -> LambdaClient:
        return self.session.client("lambda", endpoint_url=self.url)

    @cached_property
    def s3(self) -> S3Client:
        return self.session.client("s3", endpoint_url=self.url)

    @cached_property
    def scheduler(self) -> EventBridgeSchedulerClient:
        return self.session.client("scheduler", endpoint_url=self.url)

    @cached_property
    def sqs(self) -> SQSClient:
        return self.session.client("sqs", endpoint_url=self.url)

    @cached_property
    def stepfunctions(self) -> SFNClient:
        # The emulator has no host of its own for synchronous executions.
        config = Config(inject_host_prefix=False)
        return self.session.client("stepfunctions", endpoint_url=self.url, config=config)

    def harm(self, rates: Mapping[str, float], seed: int = 0) -> Counter[str]:
        """Have that share of the functions' calls go wrong (see `emulator_faults.py`).

        What has gone wrong since the last time.
        """
        asked = json.dumps({"rates": dict(rates), "seed": seed}).encode()
        request = urllib.request.Request(f"{self.url}/_faults", asked, method="PUT")
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
            return Counter(json.load(response))


@contextlib.contextmanager
def emulator(directory: Path) -> Iterator[Emulator]:
    """A fresh MiniStack, which forgets everything at the end."""
    port = free_port()
    with started(directory, port, directory / "ministack.log") as found:
        yield found


@contextlib.contextmanager
def started(
    directory: Path, port: int, log: Path, settings: Mapping[str, str] | None = None
) -> Iterator[Emulator]:
    """MiniStack on that port, with further settings.

    AUTH makes it enforce IAM: each function runs under its own role, with the rights that the
    template gives it and no others.
    """
    temporary = directory / "tmp"
    temporary.mkdir(exist_ok=True)
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(directory),
        "TMPDIR": str(temporary),
        "GATEWAY_PORT": str(port),
        "BIND_HOST": "127.0.0.1",
        "AUTH": "true",
        "MINISTACK_REGION": REGION,
        **CREDENTIALS,
        **(settings or {}),
    }
    program = venv_program("SYNAPSE_MINISTACK_VENV", ".venv-ministack", "python")
    main = Path(__file__).with_name("emulator_main.py")
    with running([str(program), str(main)], env, log) as daemon:
        found = Emulator(port, daemon)
        daemon.wait_until(lambda: _is_up(found.url), PATIENCE_S)
        yield found


def _is_up(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/_ministack/health", timeout=2) as response:
            return bool(response.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False
