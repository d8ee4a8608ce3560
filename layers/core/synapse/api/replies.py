"""What handlers answer, and how it leaves."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from aws_lambda_powertools.event_handler import Response as RouteResponse
from pydantic import BaseModel

from synapse.api.errors import body_of, error_body, status_of
from synapse.domain.errors import (
    EngineLost,
    EngineUnavailable,
    LimitReached,
    SynapseError,
    Unauthenticated,
    Unavailable,
)

JSON = "application/json"

NOT_KEPT = {"Cache-Control": "no-store"}
"""Of an answer with a secret in it, which is kept by no cache (RFC 6749 §5.1)."""

WORKER_BACK_S = 5
"""When a worker that went down is likely to be up again."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a handler answers: a pydantic model, a JSON object, or ready text."""

    body: BaseModel | Mapping[str, Any] | str
    status: int = HTTPStatus.OK
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)

    def text(self) -> str:
        """The body as it goes over the wire."""
        if isinstance(self.body, str):
            return self.body
        if isinstance(self.body, BaseModel):
            return self.body.model_dump_json(by_alias=True)
        return json.dumps(self.body, ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class StreamReply:
    """What a handler answers piece by piece, each sent as soon as it is there.

    Whoever takes it closes `chunks`, also when it is not read to its end (the client has gone).
    What `if_cut` gives is sent as the last piece if the server has to end the stream before its
    time; without it the connection breaks off, so that nobody takes a part for the whole.
    """

    chunks: AsyncGenerator[bytes, None]
    content_type: str
    status: int = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)
    if_cut: Callable[[], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """An answer on its way out: header names in lower case; `body`, or `chunks` to be closed."""

    status: int
    headers: dict[str, list[str]]
    body: str = ""
    chunks: AsyncGenerator[bytes, None] | None = None
    if_cut: Callable[[], bytes] | None = None


Answered = Reply | StreamReply


def error_reply(error: SynapseError) -> Reply:
    """The answer that tells of an error."""
    headers = {}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, LimitReached):
        headers |= error.headers
        if error.retry_after_s is not None:
            headers["Retry-After"] = str(error.retry_after_s)
        else:
            # OpenAI's clients try a 429 again unless they are told that it is of no use.
            headers["x-should-retry"] = "false"
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, EngineUnavailable | EngineLost):
        headers["Retry-After"] = str(WORKER_BACK_S)
    return Reply(body_of(error), status_of(error), headers=headers)


def refusal(
    status: HTTPStatus,
    message: str,
    *,
    code: str,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> RouteResponse[str]:
    """An error as the resolver's own response."""
    body = json.dumps(error_body(status, message, code=code, param=param))
    sent = dict(headers or {})
    return RouteResponse(status_code=status, content_type=JSON, body=body, headers=sent)


def routed(response: Mapping[str, Any]) -> Response:
    """The resolver's own response."""
    headers = {name.lower(): values for name, values in response["multiValueHeaders"].items()}
    return Response(int(response["statusCode"]), headers, response["body"] or "")


def response_of(reply: Answered) -> Response:
    """A handler's answer on its way out."""
    headers = {"content-type": [reply.content_type]}
    headers |= {name.lower(): [value] for name, value in reply.headers.items()}
    if isinstance(reply, StreamReply):
        return Response(int(reply.status), headers, chunks=reply.chunks, if_cut=reply.if_cut)
    return Response(int(reply.status), headers, reply.text())


def text_of(content: bytes) -> tuple[str, bool]:
    """Content as a proxy response carries it, and whether that is in base64."""
    try:
        return content.decode(), False
    except UnicodeDecodeError:
        return b64encode(content).decode(), True
