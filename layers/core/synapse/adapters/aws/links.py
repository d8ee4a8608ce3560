"""Addresses under which S3 itself hands out what is too large for a Lambda's answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from botocore.config import Config

from synapse.adapters.aws.calls import call
from synapse.domain.file import StoredFile

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

MAX_INLINE_BYTES = 4 * 1024 * 1024
"""A Lambda answers with 6 MB, and what is not text grows by a third on its way."""

MAX_RESULT_BYTES = 5_500_000
"""Of a job's result, as it stands in a Lambda's answer: a text in JSON, in a text in JSON. What is
told beside it has the rest."""

LINK_VALID_S = 300

SIGNING = Config(
    signature_version="s3v4",
    s3={"addressing_style": "virtual", "us_east_1_regional_endpoint": "regional"},
)
"""For the client. By default it signs for the global endpoint, and where S3 sends on from there
the signature does not hold."""


class S3Links:
    """Links to large files and results; whoever has one needs no key while it is valid."""

    def __init__(self, client: S3Client, bucket: str) -> None:
        self._client = client
        self._bucket = bucket

    async def link(self, file: StoredFile) -> str | None:
        """Where to read the file, or None if it is small enough to be answered with."""
        return None if file.size_bytes <= MAX_INLINE_BYTES else await self._signed(file.blob_key)

    async def result_link(self, blob_key: str, text: str) -> str | None:
        """Where to read a result that is stored so, or None if its text can be answered with."""
        return None if len(json.dumps(text)) <= MAX_RESULT_BYTES else await self._signed(blob_key)

    async def _signed(self, blob_key: str) -> str:
        return await call(
            self._client.generate_presigned_url,
            "get_object",
            Params={"Bucket": self._bucket, "Key": blob_key},
            ExpiresIn=LINK_VALID_S,
        )
