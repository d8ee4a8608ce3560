"""Large payloads in S3."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from synapse.adapters.aws.calls import call, error_code
from synapse.adapters.chunks import regrouped
from synapse.domain.errors import SynapseError, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

logger = logging.getLogger(__name__)

PART_BYTES = 8 * 1024 * 1024
"""S3 takes parts from 5 MiB on, 10,000 of them."""

INLINE_BYTES = 2560
"""From about here on an object is cheaper than a longer item.

DynamoDB bills an item whole with each write, by the KiB: a KiB of prompt 5 times, of result 3 times
in a job's life, $3.1 and $1.9 a million. An object that is put and got once is $5.4, and $0.8 to
$2.7 for functions that wait for S3. So prompts are cheaper there from 2.0 to 2.6 KiB on, results
from 3.3 to 4.3; an embedding of 384 numbers (2.02 KiB) stays in the item.
"""


class S3BlobStore:
    """The BlobStore of the AWS target. The bucket encrypts and forgets by its own rules."""

    inline_bytes = INLINE_BYTES

    def __init__(self, client: S3Client, bucket: str, part_bytes: int = PART_BYTES) -> None:
        self._client = client
        self._bucket = bucket
        self._part_bytes = part_bytes

    async def put(self, key: str, data: bytes) -> None:
        """See the port."""
        await call(self._client.put_object, Bucket=self._bucket, Key=key, Body=data)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes]) -> int:
        """See the port. What fits one part is one request; the rest is a multipart upload."""
        async with aclosing(regrouped(chunks, self._part_bytes)) as parts:
            first = await anext(parts, b"")
            if len(first) < self._part_bytes:
                await self.put(key, first)
                return len(first)
            return await self._put_parts(key, first, parts)

    async def _put_parts(self, key: str, first: bytes, others: AsyncIterator[bytes]) -> int:
        created = await call(self._client.create_multipart_upload, Bucket=self._bucket, Key=key)
        upload_id = created["UploadId"]
        try:
            size = len(first)
            done = [await self._put_part(key, upload_id, 1, first)]
            async for part in others:
                size += len(part)
                done.append(await self._put_part(key, upload_id, len(done) + 1, part))
            await call(
                self._client.complete_multipart_upload,
                Bucket=self._bucket,
                Key=key,
                UploadId=upload_id,
                MultipartUpload={"Parts": done},
            )
        except BaseException:
            await self._abort(key, upload_id)
            raise
        return size

    async def _put_part(
        self, key: str, upload_id: str, number: int, data: bytes
    ) -> CompletedPartTypeDef:
        answer = await call(
            self._client.upload_part,
            Bucket=self._bucket,
            Key=key,
            UploadId=upload_id,
            PartNumber=number,
            Body=data,
        )
        return {"ETag": answer["ETag"], "PartNumber": number}

    async def _abort(self, key: str, upload_id: str) -> None:
        """Drop the parts. If that fails too, the bucket's lifecycle does it within a day."""
        abort = call(
            self._client.abort_multipart_upload,
            Bucket=self._bucket,
            Key=key,
            UploadId=upload_id,
        )
        try:
            await asyncio.shield(abort)
        except (SynapseError, ClientError):
            logger.warning("multipart upload not aborted", extra={"key": key}, exc_info=True)

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

    async def stream(self, key: str, start: int = 0) -> AsyncGenerator[bytes, None]:
        """See the port. A request for each piece: a slow reader holds no connection open."""
        etag = ""
        while True:
            try:
                piece, etag = await call(self._read_piece, key, start, etag)
            except ClientError as error:
                if error_code(error) == "InvalidRange":
                    return
                if error_code(error) == "PreconditionFailed":
                    raise Unavailable("what was being read has been replaced") from error
                if error_code(error) == "NoSuchKey":
                    raise KeyError(key) from error
                raise
            yield piece
            start += len(piece)
            if len(piece) < self._part_bytes:
                return

    def _read_piece(self, key: str, start: int, etag: str) -> tuple[bytes, str]:
        condition: dict[str, str] = {"IfMatch": etag} if etag else {}
        answer = self._client.get_object(
            Bucket=self._bucket,
            Key=key,
            Range=f"bytes={start}-{start + self._part_bytes - 1}",
            **condition,  # type: ignore[arg-type]
        )
        return answer["Body"].read(), answer["ETag"]

    async def delete(self, key: str) -> None:
        """See the port."""
        await call(self._client.delete_object, Bucket=self._bucket, Key=key)
