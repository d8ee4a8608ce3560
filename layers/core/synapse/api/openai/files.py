"""Routes of files: `/v1/files`. Bytes go in and out as streams."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from http import HTTPStatus
from typing import Annotated, Literal
from urllib.parse import quote

from aws_lambda_powertools.event_handler.openapi.params import Query

from synapse.api.multipart import Form, FormPart, MissingField, UnknownField
from synapse.api.openai.file_schemas import (
    FILE_FORM,
    FileDeleted,
    FileList,
    FileObject,
    content_responses,
    file_object,
)
from synapse.api.resolver import Api, Incoming, Reply, StreamReply
from synapse.api.responses import errors, json_response
from synapse.api.services import Services
from synapse.application.files import bounded
from synapse.domain.access import Principal, Scope
from synapse.domain.errors import InvalidRequest, PayloadTooLarge
from synapse.domain.file import (
    MAX_FILE_BYTES,
    MAX_PAGE,
    FileId,
    NewFile,
    Purpose,
    StoredFile,
    checked_expiry,
    checked_filename,
    uploadable,
)
from synapse.ports import FileQuery

FORM_BYTES = 64 * 1024
"""What a form may hold beside its file."""

FIELDS = ("purpose", "expires_after[anchor]", "expires_after[seconds]")

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Files a page at most.")]
After = Annotated[
    str | None, Query(max_length=200, description="The last id of the page before this one.")
]
Order = Annotated[Literal["asc", "desc"], Query(description="By time: oldest or newest first.")]
Only = Annotated[str | None, Query(description="Only files of this purpose.")]


def add_file_routes(api: Api, services: Services) -> None:
    """Register the routes on `api`."""

    @api.receives(
        "POST",
        "/v1/files",
        scope=Scope.BATCHES,
        summary="Upload a file",
        tags=["files"],
        responses={200: json_response("The file", FileObject), **errors(400, 413, 503)},
        openapi_extensions={"requestBody": FILE_FORM},
    )
    async def upload(caller: Principal, incoming: Incoming) -> Reply:
        return Reply(file_object(await receive_file(services, caller, incoming)))

    @api.handles(
        "GET",
        "/v1/files",
        scope=Scope.BATCHES,
        summary="The files there are",
        tags=["files"],
        responses={200: json_response("Some of the files", FileList), **errors(400, 503)},
    )
    async def files(
        caller: Principal,
        limit: Limit = MAX_PAGE,
        after: After = None,
        order: Order = "desc",
        purpose: Only = None,
    ) -> Reply:
        if purpose is not None and purpose not in list(Purpose):
            return Reply(FileList(data=[], first_id=None, last_id=None, has_more=False))
        page = await services.files.page(
            FileQuery(
                limit=limit,
                after=FileId(after) if after else None,
                newest_first=order == "desc",
                purpose=Purpose(purpose) if purpose is not None else None,
            ),
            caller.tenant,
        )
        data = [file_object(file) for file in page.files]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return Reply(FileList(data=data, first_id=first, last_id=last, has_more=page.has_more))

    @api.handles(
        "GET",
        "/v1/files/<file_id>",
        scope=Scope.BATCHES,
        summary="One file",
        tags=["files"],
        responses={200: json_response("The file", FileObject), **errors(404, 503)},
    )
    async def file(caller: Principal, file_id: str) -> Reply:
        return Reply(file_object(await services.files.get(FileId(file_id), caller.tenant)))

    @api.handles(
        "DELETE",
        "/v1/files/<file_id>",
        scope=Scope.BATCHES,
        summary="Delete a file",
        tags=["files"],
        responses={200: json_response("It is deleted", FileDeleted), **errors(404, 503)},
    )
    async def delete(caller: Principal, file_id: str) -> Reply:
        await services.files.delete(FileId(file_id), caller.tenant)
        return Reply(FileDeleted(id=file_id))

    @api.handles(
        "GET",
        "/v1/files/<file_id>/content",
        scope=Scope.BATCHES,
        summary="A file's bytes",
        tags=["files"],
        responses={**content_responses(), **errors(404, 503)},
    )
    async def content(caller: Principal, file_id: str) -> Reply | StreamReply:
        file = await services.files.get(FileId(file_id), caller.tenant)
        link = await services.file_link(file)
        if link is not None:
            headers = {"Location": link, "Cache-Control": "no-store"}
            return Reply("", HTTPStatus.FOUND, "text/plain", headers)
        chunks = await _begun(services.files.content(file))
        disposition = f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}"
        headers = {"Content-Disposition": disposition, "X-Content-Type-Options": "nosniff"}
        return StreamReply(chunks, "application/octet-stream", headers=headers)


async def receive_file(services: Services, caller: Principal, incoming: Incoming) -> StoredFile:
    """Store the file of a form, wherever in the form it stands.

    Raises:
        RequestError: the form is malformed, lacks something, or is too large.
    """
    body = bounded_body(incoming, MAX_FILE_BYTES, "file")
    form = Form(incoming.headers.get("content-type", ""), body)
    async with aclosing(form.parts()) as parts:
        return await _file_of(services, caller, parts)


async def _file_of(
    services: Services, caller: Principal, parts: AsyncGenerator[FormPart, None]
) -> StoredFile:
    fields: dict[str, str] = {}
    async for part in parts:
        if part.name != "file":
            await _add_field(fields, part)
            continue
        if part.filename is None:
            raise InvalidRequest("file: must be sent as a file, with a filename", param="file")
        filename = checked_filename(part.filename)
        if "purpose" in fields:
            uploadable(fields["purpose"])

        async def describe(filename: str = filename) -> NewFile:
            async for later in parts:
                await _add_field(fields, later)
            return _new_file(filename, fields, caller.tenant)

        return await services.files.receive(part.chunks(), describe)
    raise MissingField("file: is required", param="file")


def bounded_body(incoming: Incoming, max_bytes: int, param: str) -> AsyncIterator[bytes]:
    """The body of a form whose file, `param`, has at most `max_bytes`.

    Raises:
        PayloadTooLarge: the request says beforehand that it has more.
    """
    declared = incoming.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > max_bytes + FORM_BYTES:
        raise PayloadTooLarge(f"{param}: at most {max_bytes} bytes are accepted", param=param)
    return bounded(incoming.chunks, max_bytes + FORM_BYTES, param)


async def _add_field(fields: dict[str, str], part: FormPart) -> None:
    name = part.name[:80]
    if name == "file" or name in fields:
        raise InvalidRequest(f"{name}: is given twice", param=name)
    if name not in FIELDS:
        raise UnknownField(f"{name}: is not a field of this request; see /api/docs", param=name)
    fields[name] = await part.text()


def _new_file(filename: str, fields: dict[str, str], tenant: str) -> NewFile:
    if "purpose" not in fields:
        raise MissingField("purpose: is required", param="purpose")
    anchor, seconds = (fields.get(f"expires_after[{key}]") for key in ("anchor", "seconds"))
    expires_after_s = checked_expiry(anchor, seconds)
    return NewFile(filename, uploadable(fields["purpose"]), expires_after_s, tenant)


async def _begun(chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The same stream, with its first piece fetched: what is wrong with it is known by now."""
    first = await anext(chunks, b"")

    async def all_of_it() -> AsyncGenerator[bytes, None]:
        try:
            yield first
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()

    return all_of_it()
