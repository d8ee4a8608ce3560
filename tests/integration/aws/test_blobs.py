"""S3BlobStore when S3 refuses or breaks down."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from synapse.adapters.aws.blobs import S3BlobStore
from synapse.domain import cost
from synapse.domain.errors import Unavailable
from tests.aws import Aws, Call, intercepted
from tests.integration.aws.faults import client_error, failing


async def test_a_breakdown_is_unavailable(cloud: Aws) -> None:
    blobs = S3BlobStore(cloud.s3, cloud.bucket)

    with failing(cloud.s3, client_error("SlowDown", "GetObject", 503)), pytest.raises(Unavailable):
        await blobs.get("key")


async def test_a_missing_bucket_is_not_taken_for_a_missing_key(cloud: Aws) -> None:
    with pytest.raises(ClientError, match="NoSuchBucket"):
        await S3BlobStore(cloud.s3, "no-such-bucket").get("key")


def test_what_counts_as_small_is_what_bills_are_reckoned_by(cloud: Aws) -> None:
    assert S3BlobStore(cloud.s3, cloud.bucket).inline_bytes == cost.INLINE_KIB * 1024


PART_BYTES = 5 * 1024 * 1024


async def parts(count: int) -> AsyncIterator[bytes]:
    for n in range(count):
        yield bytes([n]) * PART_BYTES


async def test_a_part_that_fails_aborts_the_upload(cloud: Aws) -> None:
    blobs = S3BlobStore(cloud.s3, cloud.bucket, PART_BYTES)

    def third_fails(call: Call, operation: str, arguments: dict[str, Any]) -> Any:
        if arguments.get("PartNumber") == 3:
            raise client_error("SlowDown", operation, 503)
        return call(operation, arguments)

    with intercepted(cloud.s3, third_fails), pytest.raises(Unavailable):
        await blobs.put_stream("key", parts(4))

    assert "Uploads" not in cloud.s3.list_multipart_uploads(Bucket=cloud.bucket)


async def test_a_blob_replaced_while_it_is_read_is_never_a_mixture(cloud: Aws) -> None:
    blobs = S3BlobStore(cloud.s3, cloud.bucket, PART_BYTES)
    await blobs.put_stream("key", parts(2))

    stream = blobs.stream("key")
    await anext(stream)
    await blobs.put("key", b"x" * 2 * PART_BYTES)

    with pytest.raises(Unavailable, match="replaced"):
        await anext(stream)
