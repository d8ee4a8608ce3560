"""Routes of batches: `/v1/batches`."""

from __future__ import annotations

from typing import Annotated, Literal

from aws_lambda_powertools.event_handler.openapi.params import Body, Query
from pydantic import Field

from synapse.api.inputs import Text
from synapse.api.openai.client import RequestKey, RetryCount, attempt_of
from synapse.api.openai.file_schemas import ExpiresAfter
from synapse.api.resolver import Answered, Api, Reply
from synapse.api.responses import ERRORS, json_response
from synapse.api.schemas import MetadataKey, MetadataValue, Request
from synapse.api.services import Services
from synapse.api.wire import WireModel
from synapse.application.file_batches import CreateFileBatch
from synapse.domain.access import Principal, Scope
from synapse.domain.file_batch import FileBatch, FileBatchId, FileBatchStatus

Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)]
Limit = Annotated[int, Query(ge=1, le=100, description="Batches a page at most.")]
After = Annotated[
    str | None, Query(max_length=200, description="The last id of the page before this one.")
]


class BatchRequest(Request):
    """A file of requests to run within a time."""

    input_file_id: Text = Field(description="A file with purpose `batch`, one request a line.")
    endpoint: Text = Field(description="The route of all its requests.")
    completion_window: Text = Field(
        description="`24h`; less, in hours (`1h`) or minutes (`30m`), is kept to as well."
    )
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


class RequestCounts(WireModel):
    """How many requests there are, and how many have ended either way."""

    total: int
    completed: int
    failed: int


class BatchFault(WireModel):
    """What was wrong with the file, and in which line."""

    code: str
    message: str
    param: str | None
    line: int | None


class BatchErrors(WireModel):
    """Why a batch failed."""

    object: Literal["list"] = "list"
    data: list[BatchFault]


class InputTokens(WireModel):
    """Of the tokens read, those that were in the engine's prefix cache."""

    cached_tokens: int


class OutputTokens(WireModel):
    """Of the tokens written, those of reasoning: none is told apart here."""

    reasoning_tokens: int = 0


class BatchUsage(WireModel):
    """Tokens of all answers so far."""

    input_tokens: int
    input_tokens_details: InputTokens
    output_tokens: int
    output_tokens_details: OutputTokens = OutputTokens()
    total_tokens: int


class BatchObject(WireModel):
    """A batch as it stands."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: FileBatchStatus
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None


class BatchList(WireModel):
    """Some of the batches, newest first; the next page begins `after` the last id."""

    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


def add_batch_routes(api: Api, services: Services) -> None:
    """Register the routes on `api`."""

    @api.handles(
        "POST",
        "/v1/batches",
        scope=Scope.BATCHES,
        summary="Run the requests of a file",
        tags=["batches"],
        responses={200: json_response("The batch", BatchObject), **ERRORS},
    )
    async def create(
        caller: Principal,
        body: Annotated[BatchRequest, Body()],
        key: RequestKey = None,
        retries: RetryCount = None,
    ) -> Answered:
        expires = body.output_expires_after
        command = CreateFileBatch(
            endpoint=body.endpoint,
            input_file_id=body.input_file_id,
            completion_window=body.completion_window,
            metadata=body.metadata,
            output_expires_after_s=expires.seconds if expires else None,
            caller=caller,
        )

        async def created() -> Reply:
            return Reply(batch_object(await services.batches.create(command)))

        return await services.retries.answer(
            attempt_of(caller, "batches", body, key, retries), created
        )

    @api.handles(
        "GET",
        "/v1/batches",
        scope=Scope.BATCHES,
        summary="The batches there are",
        tags=["batches"],
        responses={200: json_response("Some of the batches", BatchList), 400: ERRORS[400]},
    )
    async def batches(caller: Principal, limit: Limit = 20, after: After = None) -> Reply:
        start = FileBatchId(after) if after else None
        page = await services.batches.page(caller.tenant, start, limit)
        data = [batch_object(batch) for batch in page.batches]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return Reply(BatchList(data=data, first_id=first, last_id=last, has_more=page.has_more))

    @api.handles(
        "GET",
        "/v1/batches/<batch_id>",
        scope=Scope.BATCHES,
        summary="One batch",
        tags=["batches"],
        responses={200: json_response("The batch", BatchObject), 404: ERRORS[404]},
    )
    async def batch(caller: Principal, batch_id: str) -> Reply:
        found = await services.batches.get(caller.tenant, FileBatchId(batch_id))
        return Reply(batch_object(found))

    @api.handles(
        "POST",
        "/v1/batches/<batch_id>/cancel",
        scope=Scope.BATCHES,
        summary="Stop a batch; what was answered is kept",
        tags=["batches"],
        responses={
            200: json_response("The batch, about to be cancelled", BatchObject),
            404: ERRORS[404],
            409: ERRORS[409],
        },
    )
    async def cancel(caller: Principal, batch_id: str) -> Reply:
        batch = await services.batches.cancel(caller.tenant, FileBatchId(batch_id))
        return Reply(batch_object(batch))


def batch_object(batch: FileBatch) -> BatchObject:
    """The batch as it is told."""

    def at(status: FileBatchStatus) -> int | None:
        entered = batch.entered.get(status)
        return None if entered is None else int(entered)

    counts, usage = batch.counts, batch.usage
    faults = [
        BatchFault(code=f.code, message=f.message, param=f.param, line=f.line) for f in batch.faults
    ]
    return BatchObject(
        id=batch.id,
        endpoint=batch.endpoint,
        model=batch.model,
        errors=BatchErrors(data=faults) if faults else None,
        input_file_id=batch.input_file_id,
        completion_window=batch.completion_window,
        status=batch.status,
        output_file_id=batch.output_file_id,
        error_file_id=batch.error_file_id,
        created_at=int(batch.created_at),
        in_progress_at=at(FileBatchStatus.IN_PROGRESS),
        expires_at=int(batch.expires_at),
        finalizing_at=at(FileBatchStatus.FINALIZING),
        completed_at=at(FileBatchStatus.COMPLETED),
        failed_at=at(FileBatchStatus.FAILED),
        expired_at=at(FileBatchStatus.EXPIRED),
        cancelling_at=at(FileBatchStatus.CANCELLING),
        cancelled_at=at(FileBatchStatus.CANCELLED),
        request_counts=RequestCounts(
            total=counts.total, completed=counts.completed, failed=counts.failed
        ),
        usage=BatchUsage(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputTokens(cached_tokens=usage.cached_tokens or 0),
            output_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
        ),
        metadata=None if batch.metadata is None else dict(batch.metadata),
    )
