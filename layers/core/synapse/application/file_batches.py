"""Create, read, list and cancel file batches; `synapse.application.advance` runs them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from synapse.application.files import Files
from synapse.domain.access import ANYONE, Principal
from synapse.domain.errors import (
    FileBatchNotCancellable,
    FileBatchNotFound,
    FileUnknown,
    InvalidRequest,
    Unavailable,
)
from synapse.domain.file import FileId, Purpose
from synapse.domain.file_batch import (
    LINE_TIER,
    FileBatch,
    FileBatchId,
    FileBatchStatus,
    window_s,
)
from synapse.ports import Clock
from synapse.ports.file_batches import FileBatchStarter, FileBatchStore

logger = logging.getLogger(__name__)

CANCEL_TRIES = 20
"""Each is lost only to a step of the batch that was recorded at that moment."""

STALE_AFTER_S = 300.0
"""An open batch that nobody has looked after for so long has lost who drove it."""


@dataclass(frozen=True, slots=True)
class CreateFileBatch:
    """A caller's request for a batch."""

    endpoint: str
    input_file_id: str
    completion_window: str
    metadata: Mapping[str, str] | None = None
    output_expires_after_s: int | None = None
    caller: Principal = ANYONE


@dataclass(frozen=True, slots=True)
class FileBatchPage:
    """Some of a tenant's batches, and whether there are more."""

    batches: Sequence[FileBatch]
    has_more: bool


@dataclass(frozen=True, slots=True)
class FileBatches:
    """The use cases behind the routes of batches."""

    store: FileBatchStore
    files: Files
    starter: FileBatchStarter
    endpoints: Sequence[str]
    clock: Clock
    new_id: Callable[[], str]

    async def create(self, command: CreateFileBatch) -> FileBatch:
        """Accept a batch; its file is looked through afterwards.

        Raises:
            Forbidden: the caller may not ask for the tier that lines have.
            InvalidRequest: the endpoint, the window or the file's purpose is not served.
            FileUnknown: there is no such file.
        """
        command.caller.require_tier(LINE_TIER, of="batches")
        if command.endpoint not in self.endpoints:
            served = ", ".join(self.endpoints)
            raise InvalidRequest(f"endpoint: must be one of {served}", param="endpoint")
        seconds = window_s(command.completion_window)
        if seconds is None:
            raise InvalidRequest(
                "completion_window: must be 24h, or less in whole hours (1h) or minutes (30m)",
                param="completion_window",
            )
        try:
            file = await self.files.get(FileId(command.input_file_id), command.caller.tenant)
        except FileUnknown as error:
            raise FileUnknown(f"input_file_id: {error.message}", param="input_file_id") from error
        if file.purpose is not Purpose.BATCH:
            raise InvalidRequest(
                f"input_file_id: the file's purpose is {file.purpose}, not batch",
                param="input_file_id",
            )
        batch = FileBatch(
            id=FileBatchId(f"batch_{self.new_id()}"),
            endpoint=command.endpoint,
            input_file_id=file.id,
            input_key=file.blob_key,
            completion_window=command.completion_window,
            window_s=seconds,
            created_at=self.clock(),
            caller=command.caller,
            metadata=command.metadata,
            output_expires_after_s=command.output_expires_after_s,
            advanced_at=self.clock(),
        )
        await self.store.create(batch)
        await self._start(batch)
        return batch

    async def get(self, tenant: str, batch_id: FileBatchId) -> FileBatch:
        """The batch.

        Raises:
            FileBatchNotFound: there is no such batch.
        """
        batch = await self.store.get(tenant, batch_id)
        if batch is None:
            raise FileBatchNotFound(f"there is no batch {batch_id[:100]!r}", param="batch_id")
        return batch

    async def page(self, tenant: str, after: FileBatchId | None, limit: int) -> FileBatchPage:
        """The tenant's batches, newest first, from behind `after` on."""
        found = await self.store.page(tenant, after, limit + 1)
        return FileBatchPage(found[:limit], has_more=len(found) > limit)

    async def cancel(self, tenant: str, batch_id: FileBatchId) -> FileBatch:
        """Have a batch stopped; what was answered by then is kept.

        Raises:
            FileBatchNotFound: there is no such batch.
            FileBatchNotCancellable: it has ended otherwise, or is about to.
            Unavailable: it is being changed all the time.
        """
        for _ in range(CANCEL_TRIES):
            batch = await self.get(tenant, batch_id)
            if batch.status in (FileBatchStatus.CANCELLING, FileBatchStatus.CANCELLED):
                return batch
            if batch.status.is_final or batch.status is FileBatchStatus.FINALIZING:
                raise FileBatchNotCancellable(
                    f"batch {batch_id} is {batch.status} and cannot be cancelled"
                )
            cancelling = batch.moved(FileBatchStatus.CANCELLING, self.clock())
            cancelling = replace(cancelling, revision=batch.revision + 1)
            if await self.store.save(cancelling):
                await self._start(cancelling)
                return cancelling
        raise Unavailable("the batch is being changed; try again")

    async def restart_stale(self) -> Sequence[FileBatchId]:
        """Start again what nobody drives any more; returns which batches."""
        now = self.clock()
        stale = [b for b in await self.store.open() if now - b.advanced_at >= STALE_AFTER_S]
        for batch in stale:
            await self.starter.start(batch)
        return [batch.id for batch in stale]

    async def _start(self, batch: FileBatch) -> None:
        try:
            await self.starter.start(batch)
        except Unavailable as error:
            # It is recorded, and will be found by whoever looks for batches that stand still.
            logger.warning("batch not started yet: %s", error.message, extra={"batch": batch.id})
