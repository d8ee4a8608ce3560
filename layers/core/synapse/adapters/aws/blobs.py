"""Large payloads in S3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import call, error_code

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


class S3BlobStore:
    """The BlobStore of the AWS target. The bucket encrypts and forgets by its own rules."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    async def put(self, key: str, data: bytes) -> None:
        """See the port."""
        await call(self._client.put_object, Bucket=self._bucket, Key=key, Body=data)

    async def get(self, key: str) -> bytes:
        """See the port."""
        try:
            return await call(self._read, key)
        except ClientError as error:
            if error_code(error) == "NoSuchKey":
                raise KeyError(key) from error
            raise

    def _read(self, key: str) -> bytes:
        # The body arrives after the answer's head: both belong in the thread.
        return self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read()

    async def delete(self, key: str) -> None:
        """See the port."""
        await call(self._client.delete_object, Bucket=self._bucket, Key=key)
