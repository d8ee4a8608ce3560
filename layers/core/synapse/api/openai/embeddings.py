"""`POST /v1/embeddings`: texts in, vectors out. Lines of batches use its pure parts."""

from __future__ import annotations

import sys
from array import array
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from aws_lambda_powertools.event_handler.openapi.params import Body
from pydantic import Field
from pydantic_core import to_json

from synapse.api.inputs import MAX_INPUTS, Inputs, Text, is_single, texts_or_tokens
from synapse.api.limits import limit_headers
from synapse.api.openai.caching import CacheHeader, Caching
from synapse.api.openai.client import (
    NodeDeadline,
    PythonDeadline,
    RequestKey,
    RetryCount,
    attempt_of,
    patience_s,
)
from synapse.api.openai.unsupported import UnsupportedParameter
from synapse.api.receipts import receipt_headers
from synapse.api.resolver import Answered, Api, Reply
from synapse.api.responses import ERRORS, json_response
from synapse.api.schemas import Request
from synapse.api.services import Services
from synapse.api.wire import WireModel
from synapse.application.checks import served_model
from synapse.application.direct import DIRECT_TIER, DirectRequest
from synapse.domain.access import Principal, Scope
from synapse.domain.errors import EngineError, InvalidInput
from synapse.domain.inference import Embeddings, ModelInput, Result
from synapse.domain.model import ModelSpec
from synapse.ids import new_id

Encoding = Literal["float", "base64"]


class EmbeddingsRequest(Request):
    """One input or many; each is a text, or the ids of its tokens in the model's vocabulary."""

    model: Text = Field(description="One of the models that /v1/models lists.")
    input: Inputs = Field(description=f"Up to {MAX_INPUTS} inputs; none may be empty.")
    encoding_format: Encoding | None = Field(
        default=None, description="`base64`: 32-bit floats, little-endian."
    )
    dimensions: int | None = Field(
        default=None, ge=1, description="Only the model's own number is accepted."
    )
    user: str | None = None


class EmbeddingBody(WireModel):
    """The vector of one input."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingsUsage(WireModel):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingsBody(WireModel):
    """The vectors in the order of the inputs."""

    object: Literal["list"]
    model: str
    data: list[EmbeddingBody]
    usage: EmbeddingsUsage


@dataclass(frozen=True, slots=True)
class EmbeddingsAsk:
    """What a body asks for, and how the answer is to be told."""

    model: str
    input: ModelInput
    encoding: Encoding = "float"
    dimensions: int | None = None
    is_single: bool = False


def read_embeddings(body: EmbeddingsRequest) -> EmbeddingsAsk:
    """What a body asks for."""
    return EmbeddingsAsk(
        model=body.model,
        input=ModelInput(inputs=texts_or_tokens(body.input)),
        encoding=body.encoding_format or "float",
        dimensions=body.dimensions,
        is_single=is_single(body.input),
    )


def check_embedder(ask: EmbeddingsAsk, spec: ModelSpec) -> None:
    """Refuse what this very model cannot do.

    Raises:
        UnsupportedParameter: that is asked for.
    """
    if spec.dimensions and ask.dimensions not in (None, spec.dimensions):
        raise UnsupportedParameter(
            f"dimensions: model {spec.name!r} makes vectors of {spec.dimensions} numbers, "
            "and no others",
            param="dimensions",
        )


def embeddings_body(ask: EmbeddingsAsk, model: str, result: Result) -> dict[str, Any]:
    """The answer to `ask`.

    Raises:
        EngineError: the result is none of an embedding.
    """
    if not isinstance(result, Embeddings):
        raise EngineError(f"model {model!r} gave a text instead of vectors")
    encode = _base64 if ask.encoding == "base64" else _floats
    return {
        "object": "list",
        "model": model,
        "data": [
            {"object": "embedding", "index": index, "embedding": encode(vector)}
            for index, vector in enumerate(result.vectors)
        ],
        "usage": {
            "prompt_tokens": result.usage.prompt_tokens,
            "total_tokens": result.usage.prompt_tokens,
        },
    }


def add_embeddings_route(api: Api, services: Services) -> None:
    """Register the route on `api`."""

    @api.handles(
        "POST",
        "/v1/embeddings",
        scope=Scope.INFERENCE,
        abandonable=True,
        summary="Turn texts into vectors",
        tags=["openai"],
        responses={200: json_response("The vectors", EmbeddingsBody), **ERRORS},
    )
    async def embeddings(
        caller: Principal,
        body: Annotated[EmbeddingsRequest, Body()],
        cache: CacheHeader = None,
        python_deadline: PythonDeadline = None,
        node_deadline: NodeDeadline = None,
        key: RequestKey = None,
        retries: RetryCount = None,
    ) -> Answered:
        timeout_s = patience_s(services.max_direct_s, python_deadline, node_deadline)
        caching, ask = Caching(services.cache, cache), read_embeddings(body)
        return await services.retries.answer(
            attempt_of(caller, "embeddings", body, key, retries),
            lambda: _answer(services, caller, ask, caching, timeout_s),
        )


async def _answer(
    services: Services, caller: Principal, ask: EmbeddingsAsk, caching: Caching, timeout_s: float
) -> Reply:
    spec = await served_model(services.registry, ask.model, caller)
    check_embedder(ask, spec)
    tier = caller.tier_or(DIRECT_TIER)
    request = DirectRequest(f"embd-{new_id()}", ask.model, ask.input, timeout_s, tier, caller)
    try:
        result, headers = await _vectors(services, caching, request, spec)
    except InvalidInput as error:
        raise told(ask, error) from error
    text = _text(embeddings_body(ask, ask.model, result))
    return Reply(text, headers={**caching.headers, **headers})


async def _vectors(
    services: Services, caching: Caching, request: DirectRequest, spec: ModelSpec
) -> tuple[Result, dict[str, str]]:
    """The result, and the headers of its receipt and of what is left of the caller's limits."""
    kept = await caching.lookup(request)
    if kept is not None:
        return kept, receipt_headers([await services.direct.replay(request, spec, kept)])
    answer = await services.direct.run(request)
    await caching.keep(request, answer.result)
    return answer.result, receipt_headers([answer.receipt]) | limit_headers([answer.standing])


def told(ask: EmbeddingsAsk, error: InvalidInput) -> InvalidInput:
    """The error as one who sent a single input knows it: there `input.0` is just `input`."""
    if not ask.is_single:
        return error
    return type(error)(error.message.replace("input.0:", "input:", 1), param="input")


def _base64(vector: bytes) -> str:
    return b64encode(vector).decode()


def _floats(vector: bytes) -> list[float]:
    numbers = array("f", vector)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers.tolist()


def _text(body: Mapping[str, Any]) -> str:
    """JSON; of floats nine times as fast as the standard library writes it."""
    return to_json(body).decode()
