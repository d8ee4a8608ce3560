"""Working in-memory stores of files and uploads; they pass the contract suites too."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from synapse.domain.file import FileId, StoredFile
from synapse.domain.upload import PartId, Upload, UploadId, UploadPart, UploadState
from synapse.ports import Clock, FileQuery
from tests.fakes import FakeClock


class MemoryFileStore:
    """Files in a dict."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or FakeClock()
        self.files: dict[FileId, StoredFile] = {}

    async def create(self, file: StoredFile) -> bool:
        return self.files.setdefault(file.id, file) is file

    async def get(self, tenant: str, file_id: FileId) -> StoredFile | None:
        file = self.files.get(file_id)
        if file is None or file.tenant != tenant or file.is_expired(self._clock()):
            return None
        return file

    async def page(self, tenant: str, query: FileQuery) -> Sequence[StoredFile]:
        ids = sorted(self.files, reverse=query.newest_first)
        if query.after is not None:
            after = query.after
            ids = [i for i in ids if (i < after if query.newest_first else i > after)]
        files = [await self.get(tenant, file_id) for file_id in ids]
        return [
            file for file in files if file is not None and query.purpose in (None, file.purpose)
        ][: query.limit]

    async def delete(self, tenant: str, file_id: FileId) -> StoredFile | None:
        file = await self.get(tenant, file_id)
        return self.files.pop(file.id) if file else None


class MemoryUploadStore:
    """Uploads in dicts."""

    def __init__(self) -> None:
        self.uploads: dict[UploadId, Upload] = {}
        self._parts: defaultdict[UploadId, dict[PartId, UploadPart]] = defaultdict(dict)

    async def create(self, upload: Upload) -> None:
        self.uploads[upload.id] = upload

    async def get(self, tenant: str, upload_id: UploadId) -> Upload | None:
        upload = self.uploads.get(upload_id)
        return upload if upload is not None and upload.tenant == tenant else None

    async def add_part(self, upload: Upload, part: UploadPart) -> None:
        self._parts[upload.id][part.id] = part

    async def parts(self, upload: Upload) -> Sequence[UploadPart]:
        return [part for _, part in sorted(self._parts[upload.id].items())]

    async def finish(self, upload: Upload, state: UploadState) -> Upload | None:
        current = self.uploads.get(upload.id)
        if current is None or current.state is not UploadState.PENDING:
            return None
        self.uploads[upload.id] = replace(current, state=state)
        return self.uploads[upload.id]
