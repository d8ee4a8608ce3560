"""S3Links: links for what is too large to answer with, signed for the bucket's own region."""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest

from synapse.adapters.aws.links import MAX_INLINE_BYTES, SIGNING, S3Links
from synapse.domain.file import FileId, Purpose, StoredFile
from tests.aws import Aws
from tests.factories import NOW

FILE = StoredFile(
    id=FileId("file-1"),
    filename="a.jsonl",
    purpose=Purpose.BATCH_OUTPUT,
    size_bytes=MAX_INLINE_BYTES,
    created_at=NOW,
    expires_at=NOW + 3600,
    blob_key="files/1",
)


async def test_a_small_file_has_no_link(cloud: Aws) -> None:
    assert await S3Links(cloud.s3, cloud.bucket).link(FILE) is None


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "eu-south-2"])
async def test_a_link_is_for_one_object_of_the_buckets_region_and_for_a_while(region: str) -> None:
    links = S3Links(boto3.client("s3", region_name=region, config=SIGNING), "bucket")

    link = await links.link(replace(FILE, size_bytes=MAX_INLINE_BYTES + 1))

    assert link is not None
    address, query = urlsplit(link), parse_qs(urlsplit(link).query)
    assert address.netloc == f"bucket.s3.{region}.amazonaws.com"
    assert address.path == "/files/1"
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["300"]


async def test_a_result_has_a_link_where_a_lambda_cannot_answer_with_it(cloud: Aws) -> None:
    """With 6,291,556 bytes of JSON, in which the body is a text, in which the result is JSON."""
    links = S3Links(cloud.s3, cloud.bucket)
    fits, quotes = json.dumps({"text": "x" * 5_400_000}), json.dumps({"text": '"' * 2_000_000})

    assert await links.result_link("jobs/1/result-b", fits) is None
    for text in (json.dumps({"text": "x" * 5_600_000}), quotes):
        link = await links.result_link("jobs/1/result-b", text)
        assert link is not None
        assert urlsplit(link).path.endswith("/jobs/1/result-b")
