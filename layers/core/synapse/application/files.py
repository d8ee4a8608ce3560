"""Files: taken in and handed out as streams, never whole in memory.

The bytes are stored before the record and forgotten after it. So every record has its bytes, and
what a crash leaves are bytes that no record names; each target drops those after a while.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from synapse.domain.errors import FileUnknown, PayloadTooLarge
from synapse.domain.file import MAX_FILE_BYTES, MAX_ID_CHARS, FileId, NewFile, StoredFile
from synapse.ports import BlobStore, Clock, FileQuery, FileStore


@dataclass(frozen=True, slots=True)
class FilePage:
    """Some of a tenant's files, and whether more come after them."""

    files: tuple[StoredFile, ...]
    has_more: bool


class Files:
    """Stores, lists, reads and deletes files."""

    def __init__(
        self, store: FileStore, blobs: BlobStore, clock: Clock, new_id: Callable[[], str]
    ) -> None:
        self._store = store
        self._blobs = blobs
        self._clock = clock
        self._new_id = new_id

    async def receive(
        self,
        chunks: AsyncIterator[bytes],
        describe: Callable[[], Awaitable[NewFile]],
        max_bytes: int = MAX_FILE_BYTES,
    ) -> StoredFile:
        """Store what a caller sends; nothing stays behind if it breaks off or is refused.

        `describe` is awaited after the last byte, since a form may tell a file's purpose last.

        Raises:
            PayloadTooLarge: there are more than `max_bytes`; no more of them is asked for.
            RequestError: `describe` raised it.
        """
        blob_key = self._blob_key()
        size_bytes = await self._blobs.put_stream(blob_key, bounded(chunks, max_bytes))
        file_id = FileId(f"file-{self._new_id()}")
        try:
            new = await describe()
        except BaseException:
            await self._blobs.delete(blob_key)
            raise
        try:
            return await self._record(new, file_id, blob_key, size_bytes)
        except BaseException:
            # It may have been recorded all the same: the record goes first, or both stay.
            await self._store.delete(new.tenant, file_id)
            await self._blobs.delete(blob_key)
            raise

    async def write(
        self, file_id: FileId, new: NewFile, chunks: AsyncIterator[bytes]
    ) -> StoredFile:
        """Make a file of ours under an id of the writer's choice.

        Writing it again, as after a crash, changes nothing and returns the first one. Of two who
        write it at once one does.
        """
        first = await self._store.get(new.tenant, file_id)
        if first is not None:
            return first
        blob_key = self._blob_key()
        size_bytes = await self._blobs.put_stream(blob_key, chunks)
        return await self._record(new, file_id, blob_key, size_bytes)

    async def _record(
        self, new: NewFile, file_id: FileId, blob_key: str, size_bytes: int
    ) -> StoredFile:
        now = self._clock()
        file = StoredFile(
            id=file_id,
            filename=new.filename,
            purpose=new.purpose,
            size_bytes=size_bytes,
            created_at=now,
            expires_at=now + new.expires_after_s,
            blob_key=blob_key,
            tenant=new.tenant,
        )
        if await self._store.create(file):
            return file
        await self._blobs.delete(blob_key)
        return await self.get(file_id, new.tenant)

    async def get(self, file_id: FileId, tenant: str = "default") -> StoredFile:
        """A file.

        Raises:
            FileUnknown: there is none, it has expired, or it is another tenant's.
        """
        file = await self._store.get(tenant, file_id) if _may_be(file_id) else None
        if file is None:
            raise _unknown(file_id)
        return file

    async def page(self, query: FileQuery, tenant: str = "default") -> FilePage:
        """The files that are asked for."""
        one_more = FileQuery(query.limit + 1, query.after, query.newest_first, query.purpose)
        files = tuple(await self._store.page(tenant, one_more))
        return FilePage(files[: query.limit], len(files) > query.limit)

    async def content(self, file: StoredFile, start: int = 0) -> AsyncGenerator[bytes, None]:
        """The bytes of a file from offset `start` on, in pieces.

        Raises:
            FileUnknown: it has been deleted since it was looked up.
        """
        async with aclosing(self._blobs.stream(file.blob_key, start)) as pieces:
            try:
                async for piece in pieces:
                    yield piece
            except KeyError as error:
                raise _unknown(file.id) from error

    async def delete(self, file_id: FileId, tenant: str = "default") -> None:
        """Forget a file; who is reading it at this moment may read on or get `FileUnknown`.

        Raises:
            FileUnknown: there is none.
        """
        file = await self._store.delete(tenant, file_id) if _may_be(file_id) else None
        if file is None:
            raise _unknown(file_id)
        await self._blobs.delete(file.blob_key)

    def _blob_key(self) -> str:
        return f"files/{self._new_id()}"


async def bounded(
    chunks: AsyncIterator[bytes], max_bytes: int, param: str = "file"
) -> AsyncGenerator[bytes, None]:
    """The same chunks.

    Raises:
        PayloadTooLarge: they are more than `max_bytes`; `param` names what they are.
    """
    size_bytes = 0
    async for chunk in chunks:
        size_bytes += len(chunk)
        if size_bytes > max_bytes:
            raise PayloadTooLarge(f"{param}: at most {max_bytes} bytes are accepted", param=param)
        yield chunk


def _may_be(file_id: FileId) -> bool:
    # Stores have limits for keys, and answer with errors of their own beyond them.
    return len(file_id) <= MAX_ID_CHARS


def _unknown(file_id: FileId) -> FileUnknown:
    return FileUnknown(f"no such file: {file_id[:80]!r}", param="id")
