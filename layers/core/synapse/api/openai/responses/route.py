"""POST /v1/responses."""

from __future__ import annotations

from typing import Annotated

from aws_lambda_powertools.event_handler.openapi.params import Body

from synapse.api.openai.answering import answer
from synapse.api.openai.caching import CacheHeader, Caching
from synapse.api.openai.client import (
    NodeDeadline,
    PythonDeadline,
    RequestKey,
    RetryCount,
    attempt_of,
    patience_s,
)
from synapse.api.openai.requests import in_tier_of
from synapse.api.openai.responses.bodies import RESPONSES
from synapse.api.openai.responses.requests import read_response
from synapse.api.openai.responses.schemas import ResponsesRequest
from synapse.api.openai.responses.telling import Items
from synapse.api.resolver import Answered, Api
from synapse.api.services import Services
from synapse.domain.access import Principal, Scope


def add_responses_route(api: Api, services: Services) -> None:
    """Register the route on `api`."""

    @api.handles(
        "POST",
        "/v1/responses",
        scope=Scope.INFERENCE,
        abandonable=True,
        summary="Answer a conversation by items",
        tags=["openai"],
        responses=RESPONSES,
    )
    async def response(
        caller: Principal,
        body: Annotated[ResponsesRequest, Body()],
        cache: CacheHeader = None,
        python_deadline: PythonDeadline = None,
        node_deadline: NodeDeadline = None,
        key: RequestKey = None,
        retries: RetryCount = None,
    ) -> Answered:
        timeout_s = patience_s(services.max_direct_s, python_deadline, node_deadline)
        caching, ask = Caching(services.cache, cache), in_tier_of(read_response(body), caller)
        return await services.retries.answer(
            attempt_of(caller, "responses", body, key, retries),
            lambda: answer(services, caller, ask, Items(body, ask), caching, timeout_s),
        )
