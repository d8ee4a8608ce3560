"""POST /v1/completions."""

from __future__ import annotations

from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Body

from synapse.api.openai.answering import answer
from synapse.api.openai.bodies import COMPLETION_RESPONSES
from synapse.api.openai.caching import CacheHeader, Caching
from synapse.api.openai.choices import Choices
from synapse.api.openai.client import (
    NodeDeadline,
    PythonDeadline,
    RequestKey,
    RetryCount,
    attempt_of,
    patience_s,
)
from synapse.api.openai.requests import in_tier_of, read_completion
from synapse.api.openai.schemas import CompletionRequest
from synapse.api.resolver import Answered, Api
from synapse.api.services import Services
from synapse.domain.access import Principal, Scope


def add_completion_routes(api: Api, services: Services) -> None:
    """Register the route on `api`."""

    @api.handles(
        "POST",
        "/v1/completions",
        scope=Scope.INFERENCE,
        abandonable=True,
        summary="Continue a prompt",
        tags=["openai"],
        responses=COMPLETION_RESPONSES,
    )
    async def completion(
        caller: Principal,
        body: Annotated[CompletionRequest, Body()],
        cache: CacheHeader = None,
        python_deadline: PythonDeadline = None,
        node_deadline: NodeDeadline = None,
        key: RequestKey = None,
        retries: RetryCount = None,
    ) -> Answered:
        timeout_s = patience_s(services.max_direct_s, python_deadline, node_deadline)
        caching, ask = Caching(services.cache, cache), in_tier_of(read_completion(body), caller)
        return await services.retries.answer(
            attempt_of(caller, "completions", body, key, retries),
            lambda: answer(services, caller, ask, Choices(ask), caching, timeout_s),
        )
