"""Records of files, and of the uploads that become files. Their bytes are in a `BlobStore`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from synapse.domain.file import FileId, Purpose, StoredFile
from synapse.domain.upload import Upload, UploadId, UploadPart, UploadState


@dataclass(frozen=True, slots=True)
class FileQuery:
    """Which files of a tenant: those that come `after` a given one, at most `limit` of them."""

    limit: int
    after: FileId | None = None
    newest_first: bool = True
    purpose: Purpose | None = None


class FileStore(Protocol):
    """The files of each tenant, in the order of their ids, which begin with their time.

    What is past its `expires_at`, or another tenant's, is not there.
    """

    async def create(self, file: StoredFile) -> bool:
        """Record a new file durably; False if its id is taken, and then nothing is changed."""
        ...

    async def get(self, tenant: str, file_id: FileId) -> StoredFile | None:
        """The file, or None if there is none."""
        ...

    async def page(self, tenant: str, query: FileQuery) -> Sequence[StoredFile]:
        """The files that are asked for; `query.after` need not exist any more."""
        ...

    async def delete(self, tenant: str, file_id: FileId) -> StoredFile | None:
        """Forget a file; returns what it was, or None if there was none."""
        ...


class UploadStore(Protocol):
    """Uploads and their parts. They are kept for a while after `Upload.expires_at`."""

    async def create(self, upload: Upload) -> None:
        """Record a new upload durably."""
        ...

    async def get(self, tenant: str, upload_id: UploadId) -> Upload | None:
        """The upload, or None if there is none."""
        ...

    async def add_part(self, upload: Upload, part: UploadPart) -> None:
        """Record a part durably."""
        ...

    async def parts(self, upload: Upload) -> Sequence[UploadPart]:
        """All parts that were added, in the order of their ids."""
        ...

    async def finish(self, upload: Upload, state: UploadState) -> Upload | None:
        """End a pending upload; None if it has ended before (or is not there)."""
        ...
