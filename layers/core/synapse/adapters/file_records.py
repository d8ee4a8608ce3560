"""Files and uploads as flat, plain data: what the stores of both targets keep of them."""

from __future__ import annotations

from typing import Any

from synapse.adapters.records import Record
from synapse.domain.file import FileId, NewFile, Purpose, StoredFile
from synapse.domain.upload import PartId, Upload, UploadId, UploadPart, UploadState


def file_to_record(file: StoredFile) -> Record:
    """The record of a file."""
    return {
        "id": file.id,
        "filename": file.filename,
        "purpose": file.purpose.value,
        "size_bytes": file.size_bytes,
        "created_at": file.created_at,
        "expires_at": file.expires_at,
        "blob_key": file.blob_key,
        "tenant": file.tenant,
    }


def file_from_record(record: dict[str, Any]) -> StoredFile:
    """The file of a record."""
    return StoredFile(
        id=FileId(record["id"]),
        filename=record["filename"],
        purpose=Purpose(record["purpose"]),
        size_bytes=record["size_bytes"],
        created_at=record["created_at"],
        expires_at=record["expires_at"],
        blob_key=record["blob_key"],
        tenant=record["tenant"],
    )


def upload_to_record(upload: Upload) -> Record:
    """The record of an upload."""
    return {
        "id": upload.id,
        "filename": upload.file.filename,
        "purpose": upload.file.purpose.value,
        "expires_after_s": upload.file.expires_after_s,
        "tenant": upload.file.tenant,
        "mime_type": upload.mime_type,
        "size_bytes": upload.size_bytes,
        "created_at": upload.created_at,
        "expires_at": upload.expires_at,
        "state": upload.state.value,
    }


def upload_from_record(record: dict[str, Any]) -> Upload:
    """The upload of a record."""
    file = NewFile(
        filename=record["filename"],
        purpose=Purpose(record["purpose"]),
        expires_after_s=record["expires_after_s"],
        tenant=record["tenant"],
    )
    return Upload(
        id=UploadId(record["id"]),
        file=file,
        mime_type=record["mime_type"],
        size_bytes=record["size_bytes"],
        created_at=record["created_at"],
        expires_at=record["expires_at"],
        state=UploadState(record["state"]),
    )


def part_to_record(part: UploadPart) -> Record:
    """The record of an upload's part."""
    return {
        "id": part.id,
        "upload_id": part.upload_id,
        "size_bytes": part.size_bytes,
        "created_at": part.created_at,
        "blob_key": part.blob_key,
    }


def part_from_record(record: dict[str, Any]) -> UploadPart:
    """The part of a record."""
    return UploadPart(
        id=PartId(record["id"]),
        upload_id=UploadId(record["upload_id"]),
        size_bytes=record["size_bytes"],
        created_at=record["created_at"],
        blob_key=record["blob_key"],
    )
