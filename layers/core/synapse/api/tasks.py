"""Routes of the second shape, `/api/inference…`: the same jobs, called tasks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

from aws_lambda_powertools.event_handler.openapi.params import Body
from pydantic import ValidationError

from synapse.api.errors import body_of, error_body, failure_body, validation_error
from synapse.api.jobs import KeyHeader, Wait, receipt_fields, sampling
from synapse.api.limits import limit_headers
from synapse.api.resolver import Api, Reply
from synapse.api.responses import ERRORS, RESULT_LOST, json_response
from synapse.api.schemas import (
    TaskAccepted,
    TaskBatchAccepted,
    TaskBatchRequest,
    TaskRequest,
    TaskResult,
)
from synapse.api.services import Services
from synapse.application.intake import JOB_TIER, SubmitJob
from synapse.application.results import JobView
from synapse.application.submit import Accepted
from synapse.domain.access import Principal, Scope
from synapse.domain.errors import SynapseError
from synapse.domain.inference import ModelInput
from synapse.domain.job import JobId, Priority


def add_task_routes(api: Api, services: Services) -> None:
    """Register the routes on `api`."""

    @api.handles(
        "POST",
        "/api/inference",
        scope=Scope.INFERENCE,
        summary="Submit a task",
        tags=["tasks"],
        responses={202: json_response("Accepted", TaskAccepted), **ERRORS},
    )
    async def submit(
        caller: Principal,
        body: Annotated[TaskRequest, Body()],
        idempotency_key: KeyHeader = None,
    ) -> Reply:
        command = _command(caller, body, services.default_model, idempotency_key)
        accepted = await services.submitter.submit(command)
        return Reply(_accepted(accepted), 202, headers=limit_headers([accepted.standing]))

    @api.handles(
        "POST",
        "/api/inference/batch",
        scope=Scope.INFERENCE,
        summary="Submit many tasks; a bad one does not reject the others",
        tags=["tasks"],
        responses={202: json_response("What became of each", TaskBatchAccepted), **ERRORS},
    )
    async def submit_batch(
        caller: Principal,
        body: Annotated[TaskBatchRequest, Body()],
        idempotency_key: KeyHeader = None,
    ) -> Reply:
        return await _submit_batch(services, caller, body.requests, idempotency_key)

    @api.handles(
        "GET",
        "/api/inference/<task_id>",
        scope=Scope.INFERENCE,
        abandonable=True,
        summary="A task's state and result",
        tags=["tasks"],
        responses={200: json_response("The task", TaskResult), **ERRORS, **RESULT_LOST},
    )
    async def result(caller: Principal, task_id: str, wait: Wait = 0.0) -> Reply:
        wait_s = min(wait, services.max_wait_s)
        return Reply(_result(await services.results.get(JobId(task_id), caller.tenant, wait_s)))


def _command(
    caller: Principal, body: TaskRequest, default_model: str, key: str | None = None
) -> SubmitJob:
    return SubmitJob(
        model=body.model or default_model,
        input=ModelInput(prompt=body.data.text, parameters=sampling(body.parameters)),
        priority=Priority(body.priority),
        sla=caller.tier_or(JOB_TIER),
        timeout_s=body.timeout,
        caller=caller,
        idempotency_key=key,
        callback_url=body.callback_url,
    )


def _accepted(accepted: Accepted) -> TaskAccepted:
    return TaskAccepted(
        task_id=accepted.job.id,
        status=accepted.job.state.lower(),
        queue_position=accepted.queue_position,
        estimated_wait_time=accepted.estimated_wait_s,
        cold_start=accepted.is_cold,
    )


def _text(result: Mapping[str, Any]) -> str:
    """The text of a result; one that has none (vectors) as JSON."""
    return str(result["text"]) if "text" in result else json.dumps(result)


def _result(view: JobView) -> TaskResult:
    job = view.job
    ended = job.finished_at is not None and job.started_at is not None
    return TaskResult(
        task_id=job.id,
        status=job.state.lower(),
        result=_text(view.result) if view.result and not view.result_url else None,
        result_url=view.result_url,
        error=failure_body(job.failure) if job.failure else None,
        processing_time=(job.finished_at or 0) - (job.started_at or 0) if ended else None,
        cold_start=view.cold is not None,
        estimated_wait_time=view.cold.wait_s if view.cold else None,
        **receipt_fields(job),
    )


async def _submit_batch(
    services: Services, caller: Principal, bodies: list[Any], key: str | None
) -> Reply:
    results: list[Mapping[str, Any]] = [{} for _ in bodies]
    commands: dict[int, SubmitJob] = {}
    for index, body in enumerate(bodies):
        try:
            request = TaskRequest.model_validate(body)
        except ValidationError as error:
            message, param, code = validation_error(error.errors(include_url=False))
            results[index] = error_body(400, message, code=code, param=param)
        else:
            # Each task has its own part of the key; no header's value has a line break.
            part = None if key is None else f"{key}\n{index}"
            commands[index] = _command(caller, request, services.default_model, part)
    outcomes = await services.submitter.submit_many(list(commands.values()))
    for index, outcome in zip(commands, outcomes, strict=True):
        if isinstance(outcome, SynapseError):
            results[index] = body_of(outcome)
        else:
            results[index] = _accepted(outcome).model_dump()
    refused = sum("error" in result for result in results)
    body = TaskBatchAccepted(
        accepted=len(results) - refused,
        rejected=refused,
        results=[{"index": index, **result} for index, result in enumerate(results)],
    )
    headers = limit_headers(each.standing for each in outcomes if isinstance(each, Accepted))
    return Reply(body, 202, headers=headers)
