"""Files on one machine: their records, their bytes, and the forgetting of both."""

from __future__ import annotations

import time
from pathlib import Path

from synapse.adapters.local.blobs import FolderBlobStore
from synapse.adapters.local.database import Database
from synapse.adapters.local.file_store import SqliteFileStore, SqliteUploadStore
from synapse.application.files import Files
from synapse.application.uploads import Uploads
from synapse.domain.file import MAX_EXPIRY_S, StoredFile
from synapse.ids import new_id
from synapse.ports import Clock

UPLOAD_KEPT_S = 3600.0
"""After its time: a client that completes an upload late is told what became of it."""

ORPHANED_AFTER_S = MAX_EXPIRY_S + 2 * 86_400.0
"""No record names a blob that is so old: no file lives that long."""


class FileParts:
    """The use cases of files over a database and a folder of their own.

    Of their own, because they outlive what else is in a `FolderBlobStore`.
    """

    def __init__(self, database: Database, folder: Path, clock: Clock = time.time) -> None:
        """Keep the bytes in `folder`.

        Raises:
            StorageError: it cannot be made.
        """
        self._clock = clock
        self._file_store = SqliteFileStore(database, clock)
        self._upload_store = SqliteUploadStore(database)
        self.blobs = FolderBlobStore(folder)
        self.files = Files(self._file_store, self.blobs, clock, new_id)
        self.uploads = Uploads(self._upload_store, self.files, self.blobs, clock, new_id)

    async def recover(self) -> None:
        """Drop what the last process was writing when it died: call it before anything else."""
        await self.blobs.drop_partials()

    async def link(self, file: StoredFile) -> str | None:
        """Files are read here, whatever their size."""
        return None

    async def purge(self) -> int:
        """Forget files and uploads whose time has passed; returns how many.

        Blobs go before records, so that a crash between the two leaves nothing behind.
        """
        purged = 0
        while files := await self._file_store.expired():
            for file in files:
                await self.blobs.delete(file.blob_key)
            await self._file_store.forget(files)
            purged += len(files)
        while uploads := await self._upload_store.expired(self._clock() - UPLOAD_KEPT_S):
            for _, parts in uploads:
                for part in parts:
                    await self.blobs.delete(part.blob_key)
            await self._upload_store.forget([upload for upload, _ in uploads])
            purged += len(uploads)
        await self.blobs.prune(time.time() - ORPHANED_AFTER_S)
        return purged
