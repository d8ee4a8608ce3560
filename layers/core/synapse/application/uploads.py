"""Files in parts: begin, add parts in any order, complete."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from synapse.application.files import Files, bounded
from synapse.domain.errors import (
    FileUnknown,
    InvalidRequest,
    PayloadTooLarge,
    Unavailable,
    UploadUnknown,
)
from synapse.domain.file import MAX_FILE_BYTES, MAX_ID_CHARS, NewFile, StoredFile
from synapse.domain.upload import (
    MAX_PART_BYTES,
    UPLOAD_EXPIRY_S,
    PartId,
    Upload,
    UploadId,
    UploadPart,
    UploadState,
    in_order,
)
from synapse.ports import BlobStore, Clock, UploadStore


@dataclass(frozen=True, slots=True)
class UploadView:
    """An upload, its state at the time of asking, and the file it has become, if it is there."""

    upload: Upload
    state: UploadState
    file: StoredFile | None = None


class Uploads:
    """Takes files in parts; their parts are joined when the upload is completed."""

    def __init__(
        self,
        store: UploadStore,
        files: Files,
        blobs: BlobStore,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._store = store
        self._files = files
        self._blobs = blobs
        self._clock = clock
        self._new_id = new_id

    async def begin(self, file: NewFile, mime_type: str, size_bytes: int) -> UploadView:
        """Expect a file of `size_bytes` within the hour.

        Raises:
            PayloadTooLarge: that is more than a file may have.
        """
        if size_bytes > MAX_FILE_BYTES:
            raise PayloadTooLarge(
                f"bytes: at most {MAX_FILE_BYTES} bytes are accepted", param="bytes"
            )
        now = self._clock()
        upload = Upload(
            id=UploadId(f"upload_{self._new_id()}"),
            file=file,
            mime_type=mime_type,
            size_bytes=size_bytes,
            created_at=now,
            expires_at=now + UPLOAD_EXPIRY_S,
        )
        await self._store.create(upload)
        return UploadView(upload, upload.state)

    async def add_part(
        self, upload_id: UploadId, chunks: AsyncIterator[bytes], tenant: str = "default"
    ) -> UploadPart:
        """Store a part; nothing stays behind if it breaks off.

        Raises:
            UploadUnknown: there is no such upload.
            UploadNotPending: it has ended.
            PayloadTooLarge: the part is larger than a part, or than the whole file, may be.
        """
        upload = await self._get(upload_id, tenant)
        upload.require_pending(self._clock())
        part_id = PartId(f"part_{self._new_id()}")
        blob_key = f"uploads/{upload.id}/{part_id}"
        limit = min(MAX_PART_BYTES, upload.size_bytes)
        size_bytes = await self._blobs.put_stream(blob_key, bounded(chunks, limit, "data"))
        part = UploadPart(part_id, upload.id, size_bytes, self._clock(), blob_key)
        try:
            await self._store.add_part(upload, part)
        except BaseException:
            await self._blobs.delete(blob_key)
            raise
        return part

    async def complete(
        self,
        upload_id: UploadId,
        part_ids: Sequence[str],
        md5: str | None = None,
        tenant: str = "default",
    ) -> UploadView:
        """Make the file of the parts; doing it again returns the same file.

        Raises:
            UploadUnknown: there is no such upload.
            UploadNotPending: it was cancelled, or its hour is over.
            InvalidRequest: the parts do not make the file that was announced.
        """
        upload = await self._get(upload_id, tenant)
        if upload.state is UploadState.COMPLETED:
            return await self._completed(upload)
        upload.require_pending(self._clock())
        parts = {part.id: part for part in await self._store.parts(upload)}
        ordered = in_order(upload, parts, part_ids)
        await self._files.write(upload.file_id, upload.file, self._joined(ordered, md5))
        ended = await self._store.finish(upload, UploadState.COMPLETED)
        if ended is None:
            return await self._ended_meanwhile(upload)
        await self._drop(parts.values())
        return await self._completed(ended)

    async def cancel(self, upload_id: UploadId, tenant: str = "default") -> UploadView:
        """Give up an upload and its parts; cancelling it again changes nothing.

        Raises:
            UploadUnknown: there is no such upload.
            UploadNotPending: it was completed, or its hour is over.
        """
        upload = await self._get(upload_id, tenant)
        if upload.state is not UploadState.CANCELLED:
            upload.require_pending(self._clock())
            if await self._store.finish(upload, UploadState.CANCELLED) is None:
                raise Unavailable("the upload has just ended otherwise")
            await self._drop(await self._store.parts(upload))
        return UploadView(replace(upload, state=UploadState.CANCELLED), UploadState.CANCELLED)

    async def _get(self, upload_id: UploadId, tenant: str) -> Upload:
        is_id = len(upload_id) <= MAX_ID_CHARS
        upload = await self._store.get(tenant, upload_id) if is_id else None
        if upload is None:
            raise UploadUnknown(f"no such upload: {upload_id[:80]!r}", param="upload_id")
        return upload

    async def _completed(self, upload: Upload) -> UploadView:
        try:
            file = await self._files.get(upload.file_id, upload.tenant)
        except FileUnknown:
            return UploadView(upload, UploadState.COMPLETED)
        return UploadView(upload, UploadState.COMPLETED, file)

    async def _ended_meanwhile(self, upload: Upload) -> UploadView:
        """Two completed it at once, which made one file, or it was cancelled just now."""
        upload = await self._get(upload.id, upload.tenant)
        if upload.state is not UploadState.COMPLETED:
            await self._files.delete(upload.file_id, upload.tenant)
            upload.require_pending(self._clock())
        return await self._completed(upload)

    async def _joined(
        self, parts: Sequence[UploadPart], md5: str | None
    ) -> AsyncGenerator[bytes, None]:
        digest = hashlib.md5(usedforsecurity=False)
        for part in parts:
            async with aclosing(self._blobs.stream(part.blob_key)) as pieces:
                try:
                    async for piece in pieces:
                        digest.update(piece)
                        yield piece
                except KeyError as error:
                    raise Unavailable("another request has just ended this upload") from error
        if md5 is not None and digest.hexdigest() != md5.lower():
            raise InvalidRequest("md5: the parts do not have this checksum", param="md5")

    async def _drop(self, parts: Iterable[UploadPart]) -> None:
        for part in parts:
            await self._blobs.delete(part.blob_key)
