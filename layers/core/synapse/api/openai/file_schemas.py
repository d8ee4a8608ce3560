"""Files and uploads as OpenAI's API spells them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import ConfigDict, Field

from synapse.api.wire import WireModel
from synapse.application.uploads import UploadView
from synapse.domain.file import MAX_EXPIRY_S, MAX_FILE_BYTES, MIN_EXPIRY_S, StoredFile
from synapse.domain.upload import MAX_PART_BYTES, UploadPart


class FileObject(WireModel):
    """A file; its bytes are under `/v1/files/{id}/content`."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    status_details: None = None


class FileList(WireModel):
    """Some of the files; the next page begins `after` the last id."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(WireModel):
    """That a file is gone."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class ExpiresAfter(WireModel):
    """When the file is deleted."""

    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"]
    seconds: int = Field(ge=MIN_EXPIRY_S, le=MAX_EXPIRY_S)


class UploadRequest(WireModel):
    """A file that is to come in parts."""

    model_config = ConfigDict(extra="forbid")

    bytes: int = Field(ge=0, description=f"Of the whole file; {MAX_FILE_BYTES} at most.")
    filename: str
    mime_type: str = Field(max_length=200)
    purpose: str
    expires_after: ExpiresAfter | None = None


class CompleteRequest(WireModel):
    """The parts in the order in which they make the file."""

    model_config = ConfigDict(extra="forbid")

    part_ids: list[str] = Field(max_length=10_000)
    md5: str | None = Field(default=None, pattern="^[0-9a-fA-F]{32}$")


class UploadObject(WireModel):
    """An upload, and its file once it is completed."""

    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    expires_at: int
    filename: str
    purpose: str
    status: str
    file: FileObject | None


class PartObject(WireModel):
    """A part of an upload."""

    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str


def file_object(file: StoredFile) -> FileObject:
    """The file as it is told."""
    return FileObject(
        id=file.id,
        bytes=file.size_bytes,
        created_at=int(file.created_at),
        expires_at=int(file.expires_at),
        filename=file.filename,
        purpose=file.purpose.value,
    )


def upload_object(view: UploadView) -> UploadObject:
    """The upload as it is told."""
    upload = view.upload
    return UploadObject(
        id=upload.id,
        bytes=upload.size_bytes,
        created_at=int(upload.created_at),
        expires_at=int(upload.expires_at),
        filename=upload.file.filename,
        purpose=upload.file.purpose.value,
        status=view.state.value,
        file=file_object(view.file) if view.file else None,
    )


def part_object(part: UploadPart) -> PartObject:
    """The part as it is told."""
    return PartObject(id=part.id, created_at=int(part.created_at), upload_id=part.upload_id)


def content_responses() -> dict[int, Any]:
    """How the bytes of a file are described."""
    binary = {"schema": {"type": "string", "format": "binary"}}
    return {
        200: {"description": "The bytes", "content": {"application/octet-stream": binary}},
        302: {"description": "On AWS, of large files: where the bytes are"},
    }


def _form(properties: dict[str, Any], required: list[str]) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": required}
    return {"required": True, "content": {"multipart/form-data": {"schema": schema}}}


_BINARY = {"type": "string", "format": "binary"}

FILE_FORM = _form(
    {
        "file": {**_BINARY, "description": f"{MAX_FILE_BYTES} bytes at most."},
        "purpose": {"type": "string", "enum": ["batch"]},
        "expires_after[anchor]": {"type": "string", "enum": ["created_at"]},
        "expires_after[seconds]": {
            "type": "integer",
            "minimum": MIN_EXPIRY_S,
            "maximum": MAX_EXPIRY_S,
        },
    },
    ["file", "purpose"],
)
PART_FORM = _form(
    {"data": {**_BINARY, "description": f"{MAX_PART_BYTES} bytes at most."}}, ["data"]
)
