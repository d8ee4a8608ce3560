"""Files that come in parts, for callers whose front door takes no large bodies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

from synapse.domain.errors import InvalidRequest, UploadNotPending
from synapse.domain.file import FileId, NewFile

UploadId = NewType("UploadId", str)
PartId = NewType("PartId", str)

UPLOAD_EXPIRY_S = 3600
MAX_PART_BYTES = 64 * 1024 * 1024


class UploadState(StrEnum):
    """PENDING is the only state that changes."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that is to have `size_bytes` once all its parts are there."""

    id: UploadId
    file: NewFile
    mime_type: str
    size_bytes: int
    created_at: float
    expires_at: float
    state: UploadState = UploadState.PENDING

    @property
    def tenant(self) -> str:
        """Whose it is."""
        return self.file.tenant

    @property
    def file_id(self) -> FileId:
        """The id of the file that it becomes: completing it twice makes one file."""
        return FileId(self.id.replace("upload_", "file-", 1))

    def state_at(self, now: float) -> UploadState:
        """The state, which time changes too."""
        if self.state is UploadState.PENDING and self.expires_at <= now:
            return UploadState.EXPIRED
        return self.state

    def require_pending(self, now: float) -> None:
        """Refuse to go on with an upload that has ended.

        Raises:
            UploadNotPending: it has.
        """
        state = self.state_at(now)
        if state is not UploadState.PENDING:
            raise UploadNotPending(f"upload {self.id} is {state}")


@dataclass(frozen=True, slots=True)
class UploadPart:
    """Some of an upload's bytes; which of them, the call that completes the upload says."""

    id: PartId
    upload_id: UploadId
    size_bytes: int
    created_at: float
    blob_key: str


def in_order(
    upload: Upload, parts: Mapping[PartId, UploadPart], wanted: Sequence[str]
) -> list[UploadPart]:
    """The parts in the order that makes the file.

    Raises:
        InvalidRequest: a part is unknown or named twice, or they do not add up to the file.
    """
    if len(set(wanted)) != len(wanted):
        raise InvalidRequest("part_ids: a part is named twice", param="part_ids")
    unknown = next((part_id for part_id in wanted if part_id not in parts), None)
    if unknown is not None:
        raise InvalidRequest(
            f"part_ids: {unknown[:80]!r} is no part of {upload.id}", param="part_ids"
        )
    ordered = [parts[PartId(part_id)] for part_id in wanted]
    size_bytes = sum(part.size_bytes for part in ordered)
    if size_bytes != upload.size_bytes:
        raise InvalidRequest(
            f"part_ids: these parts have {size_bytes} bytes, the upload was to have "
            f"{upload.size_bytes}",
            param="part_ids",
        )
    return ordered
