"""A store in S3. boto3 finds the credentials and signs; the bytes come as from any HTTP server.

Signed addresses rather than boto3's own reader, because that one copies every byte twice and
cannot be broken off while it waits.
"""

import contextlib
import importlib
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Self

from synapse_worker.cache.config import TransferConfig
from synapse_worker.cache.http_store import HttpConnection
from synapse_worker.cache.stores import Missing, Unreachable
from synapse_worker.errors import WorkerError

SIGNED_FOR_S = 900
SIGNATURE_KEPT_S = 60.0
"""Signing takes a millisecond; the credentials behind a signature may end before it does."""
ABSENT = frozenset({"NoSuchKey", "404"})
BUSY = frozenset({"SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout", "503"})


def s3_client(config: TransferConfig, attempts: int) -> Any:
    """A client by the usual settings of AWS: AWS_ENDPOINT_URL, AWS_REGION, a profile or a role.

    Each call is tried `attempts` times.

    Raises:
        WorkerError: boto3 is not installed, or the settings name what is not there.
    """
    try:
        boto3: Any = importlib.import_module("boto3")
        settings: Any = importlib.import_module("botocore.config")
        exceptions: Any = importlib.import_module("botocore.exceptions")
    except ImportError as error:
        raise WorkerError(
            "Models come from s3://, and boto3 is not installed", "pip install boto3"
        ) from error
    chosen = settings.Config(
        signature_version="s3v4",
        connect_timeout=config.connect_timeout_s,
        read_timeout=config.stall_timeout_s,
        retries={"mode": "standard", "total_max_attempts": attempts},
    )
    try:
        # A session of its own: the default one keeps the credentials that others found first.
        return boto3.Session().client("s3", config=chosen)
    except exceptions.BotoCoreError as error:
        raise WorkerError(f"S3 cannot be asked: {error}", "Correct the AWS settings") from error


def split_address(address: str) -> tuple[str, str]:
    """`bucket/some/prefix` as the bucket and the prefix, which ends in a slash or is empty."""
    bucket, _, prefix = address.partition("/")
    if not bucket:
        raise WorkerError("The address of the model store names no bucket", "s3://bucket/prefix")
    prefix = prefix.strip("/")
    return bucket, f"{prefix}/" if prefix else ""


@contextlib.contextmanager
def s3_errors(where: str) -> Iterator[None]:
    """What boto3 raises within, told as a store's errors; `where` is what they call the object."""
    botocore: Any = importlib.import_module("botocore.exceptions")
    boto3: Any = importlib.import_module("boto3.exceptions")
    try:
        yield
    except botocore.ClientError as error:
        code = str(error.response["Error"]["Code"])
        if code in ABSENT:
            raise Missing(f"There is no {where}") from error
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code in BUSY or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise Unreachable(f"{where}: {code}") from error
        raise WorkerError(f"S3 refuses {where}: {code}", "Check address and rights") from error
    except botocore.NoCredentialsError as error:
        raise WorkerError(f"S3 cannot be asked: {error}", "Give the worker a role") from error
    except (botocore.BotoCoreError, boto3.Boto3Error, OSError) as error:
        raise Unreachable(f"{where}: {error}") from error


class S3Store:
    """Models below a prefix of a bucket."""

    def __init__(self, client: Any, bucket: str, prefix: str, config: TransferConfig) -> None:
        """Nothing is asked yet."""
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._config = config
        self._signed: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    @classmethod
    def at(cls, address: str, config: TransferConfig) -> Self:
        """The store at `bucket/prefix`."""
        bucket, prefix = split_address(address)
        # Who reads tries again, as often as it has a mind to.
        return cls(s3_client(config, attempts=1), bucket, prefix, config)

    def read(self, path: str) -> bytes:
        """A small file whole, through boto3, asked for once."""
        with s3_errors(f"s3://{self._bucket}/{self._prefix}{path}"):
            found = self._client.get_object(Bucket=self._bucket, Key=self._prefix + path)
            content: bytes = found["Body"].read()
            return content

    def connect(self) -> HttpConnection:
        """A connection of the caller's own."""
        return HttpConnection(self._address, self._config)

    def _address(self, path: str) -> str:
        with self._lock:
            made_at, address = self._signed.get(path, (0.0, ""))
            if not address or time.monotonic() - made_at > SIGNATURE_KEPT_S:
                key = {"Bucket": self._bucket, "Key": self._prefix + path}
                with s3_errors(f"s3://{self._bucket}/{self._prefix}{path}"):
                    address = self._client.generate_presigned_url("get_object", key, SIGNED_FOR_S)
                self._signed[path] = (time.monotonic(), address)
            return address
