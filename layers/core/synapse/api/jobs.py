"""Routes of jobs: `/async-infer`, `/infer` and `/results/{jobId}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypedDict

from aws_lambda_powertools.event_handler.openapi.params import Body, Header, Query

from synapse.api.errors import failure_body
from synapse.api.inputs import texts_or_tokens
from synapse.api.json_values import EFFORT, refuse_two_efforts
from synapse.api.limits import limit_headers
from synapse.api.receipts import CostBody, ReceiptBody, cost_body, receipt_body
from synapse.api.resolver import Api, Reply
from synapse.api.responses import ERRORS, RESULT_LOST, json_response
from synapse.api.schemas import (
    AsyncInferRequest,
    JobAccepted,
    JobResult,
    SamplingParameters,
    Timings,
    UsageBody,
)
from synapse.api.services import Services
from synapse.application.held import submit_and_wait
from synapse.application.intake import JOB_TIER, SubmitJob
from synapse.application.results import JobView
from synapse.application.submit import Accepted
from synapse.domain.access import Principal, Scope
from synapse.domain.errors import InvalidRequest
from synapse.domain.inference import ChatMessage, ModelInput
from synapse.domain.job import Job, JobId, Priority, SlaTier, Usage
from synapse.domain.receipt import receipt_of

KeyHeader = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        description="A second request with this key gets the first one's job.",
    ),
]
Wait = Annotated[
    float,
    Query(ge=0, le=3600, description="Hold the answer until the job ends, at most this long (s)."),
]


HELD_S = 20.0
"""How long `/infer` holds its answer unless it is told; on AWS a request ends after 29 s."""


class Receipts(TypedDict):
    """The fields of a result that tell what the job cost."""

    receipt: ReceiptBody | None
    cost: CostBody | None


def add_job_routes(api: Api, services: Services) -> None:
    """Register the routes on `api`."""

    @api.handles(
        "POST",
        "/async-infer",
        scope=Scope.INFERENCE,
        summary="Submit a job",
        tags=["jobs"],
        responses={202: json_response("Accepted", JobAccepted), **ERRORS},
    )
    async def submit(
        caller: Principal,
        body: Annotated[AsyncInferRequest, Body()],
        idempotency_key: KeyHeader = None,
    ) -> Reply:
        accepted = await services.submitter.submit(_command(caller, body, idempotency_key))
        return Reply(_accepted(accepted), 202, headers=_headers(accepted))

    @api.handles(
        "POST",
        "/infer",
        scope=Scope.INFERENCE,
        abandonable=True,
        summary="Submit a job, and get its result in the same answer if it ends in time",
        tags=["jobs"],
        responses={
            200: json_response("The job, which has ended", JobResult),
            202: json_response("Accepted; it has not ended yet", JobAccepted),
            **ERRORS,
        },
    )
    async def submit_held(
        caller: Principal,
        body: Annotated[AsyncInferRequest, Body()],
        idempotency_key: KeyHeader = None,
        wait: Wait = HELD_S,
    ) -> Reply:
        wait_s, command = min(wait, services.max_wait_s), _command(caller, body, idempotency_key)
        accepted, ended = await submit_and_wait(
            services.submitter, services.results, command, wait_s
        )
        if ended is not None:
            return Reply(_result(ended), headers=_headers(accepted))
        return Reply(_accepted(accepted), 202, headers=_headers(accepted))

    @api.handles(
        "GET",
        "/results/<job_id>",
        scope=Scope.INFERENCE,
        abandonable=True,
        summary="A job's state and result",
        tags=["jobs"],
        responses={200: json_response("The job", JobResult), **ERRORS, **RESULT_LOST},
    )
    async def result(caller: Principal, job_id: str, wait: Wait = 0.0) -> Reply:
        wait_s = min(wait, services.max_wait_s)
        return Reply(_result(await services.results.get(JobId(job_id), caller.tenant, wait_s)))

    @api.handles(
        "DELETE",
        "/results/<job_id>",
        scope=Scope.INFERENCE,
        summary="Cancel a job",
        tags=["jobs"],
        responses={200: json_response("The cancelled job", JobResult), **ERRORS},
    )
    async def cancel(caller: Principal, job_id: str) -> Reply:
        job = await services.results.cancel(JobId(job_id), caller.tenant, services.abort)
        return Reply(_result(job))


def sampling(parameters: SamplingParameters) -> dict[str, Any]:
    """The parameters that were given; the engine has its own defaults for the others."""
    return parameters.model_dump(exclude_none=True)


def milliseconds(start: float | None, end: float | None) -> float | None:
    """The time between two instants in ms, None while either has not come."""
    return None if start is None or end is None else round((end - start) * 1000, 3)


def _command(caller: Principal, body: AsyncInferRequest, key: str | None) -> SubmitJob:
    if sum(each is not None for each in (body.prompt, body.messages, body.input)) != 1:
        raise InvalidRequest("prompt: give one of prompt, messages and input", param="prompt")
    variables = _variables(body)
    names_tier = "sla" in body.model_fields_set
    messages = tuple(ChatMessage(m.role, m.content) for m in body.messages or ())
    return SubmitJob(
        model=body.model,
        input=ModelInput(
            body.prompt,
            messages,
            sampling(body.parameters),
            inputs=() if body.input is None else texts_or_tokens(body.input),
            variables=variables,
            effort=body.reasoning_effort,
        ),
        priority=Priority(body.priority),
        sla=SlaTier(body.sla) if names_tier else caller.tier_or(JOB_TIER),
        timeout_s=body.timeout,
        metadata=body.metadata,
        caller=caller,
        idempotency_key=key,
        callback_url=body.callback_url,
    )


def _variables(body: AsyncInferRequest) -> Mapping[str, Any]:
    """What the chat template is given besides, which there is for a conversation only."""
    for name in (EFFORT, "chat_template_kwargs"):
        if getattr(body, name) is not None and body.messages is None:
            raise InvalidRequest(f"{name}: goes with messages only", param=name)
    variables = body.chat_template_kwargs or {}
    refuse_two_efforts(body.reasoning_effort, variables, EFFORT)
    return variables


def _accepted(accepted: Accepted) -> JobAccepted:
    return JobAccepted(
        jobId=accepted.job.id,
        status=accepted.job.state,
        queue_position=accepted.queue_position,
        estimated_wait_time=accepted.estimated_wait_s,
        cold_start=accepted.is_cold,
    )


def _headers(accepted: Accepted) -> dict[str, str]:
    return {"Location": f"/results/{accepted.job.id}", **limit_headers([accepted.standing])}


def _result(view: JobView) -> JobResult:
    job, served = view.job, view.job.served
    result = dict(view.result) if view.result is not None else None
    # Recorded with the result, since records of usage have no place for it.
    cached_tokens = result.pop("cached_tokens", None) if result else None
    return JobResult(
        jobId=job.id,
        status=job.state,
        result=None if view.result_url else result,
        result_url=view.result_url,
        usage=_usage(job.usage, cached_tokens) if job.usage else None,
        error=failure_body(job.failure) if job.failure else None,
        model=job.model,
        version=job.version,
        accelerator=served.accelerator if served else None,
        pool=served.pool if served else None,
        worker=(served.worker or None) if served else None,
        routing=(served.fallback or None) if served else None,
        batch_size=served.batch_size if served else None,
        created_at=job.created_at,
        cold_start=view.cold is not None,
        estimated_wait_time=view.cold.wait_s if view.cold else None,
        timings=_timings(job),
        **receipt_fields(job),
        metadata=dict(job.metadata),
    )


def receipt_fields(job: Job) -> Receipts:
    """What a job's result tells of its receipt."""
    receipt = receipt_of(job)
    if receipt is None:
        return {"receipt": None, "cost": None}
    return {"receipt": receipt_body(receipt), "cost": cost_body(receipt.cost)}


def _usage(usage: Usage, cached_tokens: int | None) -> UsageBody:
    return UsageBody(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
        cached_tokens=cached_tokens,
    )


def _timings(job: Job) -> Timings:
    return Timings(
        queued_ms=milliseconds(job.created_at, job.started_at),
        running_ms=milliseconds(job.started_at, job.finished_at),
        total_ms=milliseconds(job.created_at, job.finished_at),
    )
