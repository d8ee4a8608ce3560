"""Routes of uploads: files in parts, `/v1/uploads`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Body

from synapse.api.multipart import Form, FormPart, MissingField, UnknownField
from synapse.api.openai.file_schemas import (
    PART_FORM,
    CompleteRequest,
    PartObject,
    UploadObject,
    UploadRequest,
    part_object,
    upload_object,
)
from synapse.api.openai.files import bounded_body
from synapse.api.resolver import Api, Incoming, Reply
from synapse.api.responses import errors, json_response
from synapse.api.services import Services
from synapse.domain.access import Principal, Scope
from synapse.domain.file import NewFile, checked_expiry, checked_filename, uploadable
from synapse.domain.upload import MAX_PART_BYTES, UploadId, UploadPart


def add_upload_routes(api: Api, services: Services) -> None:
    """Register the routes on `api`."""
    upload = json_response("The upload", UploadObject)

    @api.handles(
        "POST",
        "/v1/uploads",
        scope=Scope.BATCHES,
        summary="Begin a file that comes in parts",
        tags=["files"],
        responses={200: upload, **errors(400, 413, 503)},
    )
    async def begin(caller: Principal, body: Annotated[UploadRequest, Body()]) -> Reply:
        expires = body.expires_after
        file = NewFile(
            checked_filename(body.filename, "filename"),
            uploadable(body.purpose),
            checked_expiry(*((expires.anchor, expires.seconds) if expires else (None, None))),
            caller.tenant,
        )
        return Reply(upload_object(await services.uploads.begin(file, body.mime_type, body.bytes)))

    @api.receives(
        "POST",
        "/v1/uploads/<upload_id>/parts",
        scope=Scope.BATCHES,
        summary="Add a part",
        tags=["files"],
        responses={200: json_response("The part", PartObject), **errors(400, 404, 413, 503)},
        openapi_extensions={"requestBody": PART_FORM},
    )
    async def add_part(caller: Principal, incoming: Incoming, upload_id: str) -> Reply:
        part = await receive_part(services, caller, incoming, UploadId(upload_id))
        return Reply(part_object(part))

    @api.handles(
        "POST",
        "/v1/uploads/<upload_id>/complete",
        scope=Scope.BATCHES,
        summary="Make the file of its parts",
        tags=["files"],
        responses={200: upload, **errors(400, 404, 503)},
    )
    async def complete(
        caller: Principal, upload_id: str, body: Annotated[CompleteRequest, Body()]
    ) -> Reply:
        upload = UploadId(upload_id)
        view = await services.uploads.complete(upload, body.part_ids, body.md5, caller.tenant)
        return Reply(upload_object(view))

    @api.handles(
        "POST",
        "/v1/uploads/<upload_id>/cancel",
        scope=Scope.BATCHES,
        summary="Give up an upload",
        tags=["files"],
        responses={200: upload, **errors(400, 404, 503)},
    )
    async def cancel(caller: Principal, upload_id: str) -> Reply:
        view = await services.uploads.cancel(UploadId(upload_id), caller.tenant)
        return Reply(upload_object(view))


async def receive_part(
    services: Services, caller: Principal, incoming: Incoming, upload_id: UploadId
) -> UploadPart:
    """Store the `data` of a form as a part.

    Raises:
        RequestError: the form is malformed, has something else, or is too large.
    """
    body = bounded_body(incoming, MAX_PART_BYTES, "data")
    parts = Form(incoming.headers.get("content-type", ""), body).parts()
    return await services.uploads.add_part(upload_id, _data_of(parts), caller.tenant)


async def _data_of(parts: AsyncGenerator[FormPart, None]) -> AsyncGenerator[bytes, None]:
    """The content of the one part that there is to be."""
    is_there = False
    async for part in parts:
        name = part.name[:80]
        if part.name != "data" or is_there:
            raise UnknownField(f"{name}: is not a field of this request; see /api/docs", param=name)
        is_there = True
        async for chunk in part.chunks():
            yield chunk
    if not is_there:
        raise MissingField("data: is required", param="data")
