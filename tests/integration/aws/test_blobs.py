"""S3BlobStore when S3 refuses or breaks down."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from synapse.adapters.aws.blobs import S3BlobStore
from synapse.domain.errors import Unavailable
from tests.aws import Aws
from tests.integration.aws.faults import client_error, failing


async def test_a_breakdown_is_unavailable(cloud: Aws) -> None:
    blobs = S3BlobStore(cloud.s3, cloud.bucket)

    with failing(cloud.s3, client_error("SlowDown", "GetObject", 503)), pytest.raises(Unavailable):
        await blobs.get("key")


async def test_a_missing_bucket_is_not_taken_for_a_missing_key(cloud: Aws) -> None:
    with pytest.raises(ClientError, match="NoSuchBucket"):
        await S3BlobStore(cloud.s3, "no-such-bucket").get("key")
