"""Lines of batches: their bodies read and answered by the parts that the routes are made of."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from synapse.api.errors import InvalidBody, body_of, error_body, status_of
from synapse.api.openai.choices import Choices
from synapse.api.openai.embeddings import (
    EmbeddingsAsk,
    EmbeddingsRequest,
    check_embedder,
    embeddings_body,
    read_embeddings,
    told,
)
from synapse.api.openai.refusals import REFUSALS, Refusal, in_terms_of
from synapse.api.openai.rendering import Heading, fingerprint
from synapse.api.openai.requests import (
    Ask,
    as_tier,
    check_model,
    read_chat,
    read_completion,
)
from synapse.api.openai.responses.requests import read_response
from synapse.api.openai.responses.schemas import ResponsesRequest
from synapse.api.openai.responses.telling import Items
from synapse.api.openai.schemas import ChatRequest, CompletionRequest
from synapse.api.openai.telling import Teller
from synapse.api.openai.unsupported import UnsupportedParameter
from synapse.application.checks import served_model
from synapse.application.revocations import KEY_REVOKED
from synapse.domain.access import Principal
from synapse.domain.errors import (
    ContextLengthExceeded,
    EngineError,
    InvalidInput,
    SynapseError,
)
from synapse.domain.file_batch import LINE_TIER
from synapse.domain.inference import Completion, Result
from synapse.domain.job import Failure
from synapse.domain.loading import LOAD_FAILED
from synapse.ports import Registry
from synapse.ports.file_batches import LineRequest

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
EMBEDDINGS = "/v1/embeddings"
RESPONSES = "/v1/responses"

_FAILURES: Mapping[str, HTTPStatus] = {
    KEY_REVOKED.code: HTTPStatus.UNAUTHORIZED,
    "model_not_found": HTTPStatus.NOT_FOUND,
    "engine_unavailable": HTTPStatus.SERVICE_UNAVAILABLE,
    LOAD_FAILED: HTTPStatus.SERVICE_UNAVAILABLE,
    "worker_lost": HTTPStatus.SERVICE_UNAVAILABLE,
    "deadline_exceeded": HTTPStatus.GATEWAY_TIMEOUT,
}
"""What the routes answer when the engine fails, by the failure's code."""

_REFUSED: Mapping[str, type[InvalidInput]] = {
    kind.code: kind for kind in (InvalidInput, ContextLengthExceeded)
}
"""What the engine refuses."""

Body = TypeVar("Body", bound=BaseModel)


class OpenAiLines:
    """The LineCodec of OpenAI's routes."""

    endpoints = (CHAT, COMPLETIONS, EMBEDDINGS, RESPONSES)

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def parse(self, endpoint: str, body: Mapping[str, Any], caller: Principal) -> LineRequest:
        """See the port."""
        ask = _read(endpoint, body)
        spec = await served_model(self._registry, ask.model, caller)
        if isinstance(ask, EmbeddingsAsk):
            check_embedder(ask, spec)
            return LineRequest(spec.name, ask.input)
        check_model(ask, spec)
        if ask.stream:
            raise UnsupportedParameter("stream: a batch's answers come whole", param="stream")
        if len(ask.inputs) > 1:
            reason = "prompt: a line of a batch has one; give each prompt a line of its own"
            raise UnsupportedParameter(reason, param="prompt")
        return LineRequest(spec.name, ask.inputs[0], ask.length_at)

    async def render(
        self, endpoint: str, body: Mapping[str, Any], job_id: str, created_at: float, result: Result
    ) -> Mapping[str, Any]:
        """See the port."""
        ask = _read(endpoint, body)
        if isinstance(ask, EmbeddingsAsk):
            return embeddings_body(ask, ask.model, result)
        if not isinstance(result, Completion):
            raise EngineError("the engine gave vectors instead of text")
        spec = await self._registry.model(ask.model)
        ask, at = as_tier(ask, LINE_TIER), int(created_at)  # whichever it names
        # What was asked of a response is told again, so it is read once more.
        teller: Teller = (
            Items(_valid(ResponsesRequest, body), ask, ended_at=at)
            if endpoint == RESPONSES
            else Choices(ask)
        )
        heading = Heading(
            f"{teller.prefix}{job_id.removeprefix('batch_')}",
            at,
            ask.model,
            None if spec is None else fingerprint(spec.name, spec.version),
        )
        return teller.whole(heading, [result], keeps_tier=False)

    async def refusal(
        self, endpoint: str, body: Mapping[str, Any], error: SynapseError | Failure
    ) -> tuple[int, Mapping[str, Any]]:
        """See the port."""
        if isinstance(error, Failure):
            kind = _REFUSED.get(error.code)
            if kind is None:
                status = _FAILURES.get(error.code, HTTPStatus.INTERNAL_SERVER_ERROR)
                return status, error_body(status, error.message, code=error.code)
            error = kind(error.message, param=error.param)
        if isinstance(error, REFUSALS):
            error = await self._in_terms_of(endpoint, body, error)
        return status_of(error), body_of(error)

    async def _in_terms_of(
        self, endpoint: str, body: Mapping[str, Any], error: Refusal
    ) -> SynapseError:
        """The same, by the parameter with which it was asked for."""
        try:
            ask = _read(endpoint, body)
        except SynapseError:
            return error  # it is the form of the body that was refused
        if isinstance(ask, EmbeddingsAsk):
            return told(ask, error) if isinstance(error, InvalidInput) else error
        spec = await self._registry.model(ask.model)
        return error if spec is None else in_terms_of(ask, spec, error)


def _read(endpoint: str, body: Mapping[str, Any]) -> Ask | EmbeddingsAsk:
    if endpoint == CHAT:
        return read_chat(_valid(ChatRequest, body))
    if endpoint == COMPLETIONS:
        return read_completion(_valid(CompletionRequest, body))
    if endpoint == RESPONSES:
        return read_response(_valid(ResponsesRequest, body))
    return read_embeddings(_valid(EmbeddingsRequest, body))


def _valid(model: type[Body], body: Mapping[str, Any]) -> Body:
    try:
        return model.model_validate(body)
    except ValidationError as error:
        raise InvalidBody(error.errors(include_url=False)) from error
