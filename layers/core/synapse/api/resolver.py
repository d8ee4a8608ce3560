"""Powertools' REST resolver, made to host coroutine handlers without mixing up requests.

The resolver keeps the current request in class attributes, and its own async mode moves each
validation step to a thread. So a request is answered in two steps instead: routing and
validation run at once, without an await in between, and leave the validated call behind; the
call is then awaited outside the resolver. One process can so serve thousands of requests side
by side, for 0.1 ms of routing and validation each.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, TypeVar, get_type_hints

from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.event_handler import Response as RouteResponse
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError
from pydantic import BaseModel

from synapse.api.errors import INTERNAL_MESSAGE, body_of, error_body, status_of, validation_error
from synapse.domain.errors import (
    EngineLost,
    EngineUnavailable,
    MalformedBody,
    SynapseError,
    Unavailable,
)

logger = logging.getLogger(__name__)
JSON = "application/json"
OPENAI_VERSION = "2020-10-01"
"""The version of OpenAI's API whose shapes are spoken under /v1."""

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
    `if_cut` is sent as the last piece if the server has to end the stream before its time;
    without it the connection breaks off, so that nobody takes a part for the whole.
    """

    chunks: AsyncGenerator[bytes, None]
    content_type: str
    status: int = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)
    if_cut: bytes = b""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer on its way out: header names in lower case; `body`, or `chunks` to be closed."""

    status: int
    headers: dict[str, list[str]]
    body: str = ""
    chunks: AsyncGenerator[bytes, None] | None = None
    if_cut: bytes = b""


class ClientGone(Exception):
    """Nobody is left to answer: raised by what a front door puts around a call."""


Answered = Reply | StreamReply
Call = Callable[[], Awaitable[Answered]]
Hold = Callable[[Awaitable[Answered]], Awaitable[Answered]]
Handler = TypeVar("Handler", bound=Callable[..., Awaitable[Answered]])


async def _as_it_is(call: Awaitable[Answered]) -> Answered:
    return await call


@dataclass(frozen=True, slots=True)
class _Pending:
    """A validated call; an `abandonable` one is not worth finishing once its client has gone."""

    call: Call
    abandonable: bool


class Api(APIGatewayRestResolver):
    """Routes with `async def` handlers that return a `Reply` or a `StreamReply`."""

    def __init__(self) -> None:
        super().__init__(enable_validation=True)
        self._pending: _Pending | None = None
        self.exception_handler(RequestValidationError)(_invalid)
        self.not_found(self._no_route)

    def handles(
        self, method: str, rule: str, *, abandonable: bool = False, **openapi: Any
    ) -> Callable[[Handler], Handler]:
        """Register an `async def` handler for `method` and `rule`.

        An `abandonable` handler is cancelled when its client goes away before the answer.
        """

        def register(handler: Handler) -> Handler:
            @functools.wraps(handler)
            def leave(**arguments: Any) -> RouteResponse[None]:
                self._pending = _Pending(functools.partial(handler, **arguments), abandonable)
                return RouteResponse(status_code=HTTPStatus.OK, content_type=JSON, body=None)

            leave.__signature__ = _arguments_of(handler)  # type: ignore[attr-defined]
            self.route(rule, method, **openapi)(leave)
            return handler

        return register

    async def respond(
        self, event: Mapping[str, Any], context: Any, hold: Hold = _as_it_is
    ) -> Response:
        """The response to a Lambda proxy event.

        `hold` awaits an abandonable call; it may give up on it.

        Raises:
            ClientGone: `hold` did.
        """
        started_s = time.perf_counter()
        request_id = _request_id(event)
        try:
            refused, pending = self._validated(_as_json(event), context)
            if pending is None:
                response = _routed(refused)
            else:
                call = pending.call()
                response = _response(await (hold(call) if pending.abandonable else call))
        except ClientGone:
            raise
        except SynapseError as error:
            response = _response(_error_reply(error))
        except Exception:
            logger.exception("request failed", extra={"request_id": request_id})
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            body = error_body(status, INTERNAL_MESSAGE, code="internal_error")
            response = _response(Reply(body, status))
        response.headers["x-request-id"] = [request_id]
        if str(event.get("path")).startswith("/v1/"):
            elapsed_ms = (time.perf_counter() - started_s) * 1000
            response.headers["openai-processing-ms"] = [str(round(elapsed_ms))]
            response.headers["openai-version"] = [OPENAI_VERSION]
        return response

    async def answer(self, event: Mapping[str, Any], context: Any) -> dict[str, Any]:
        """The Lambda proxy response to a Lambda proxy event; a stream comes in one piece."""
        response = await self.respond(event, context)
        body, is_base64 = response.body, False
        if response.chunks is not None:
            async with aclosing(response.chunks) as chunks:
                body, is_base64 = _text(b"".join([chunk async for chunk in chunks]))
        return {
            "statusCode": response.status,
            "multiValueHeaders": response.headers,
            "body": body,
            "isBase64Encoded": is_base64,
        }

    def _validated(
        self, event: Mapping[str, Any], context: Any
    ) -> tuple[dict[str, Any], _Pending | None]:
        """The resolver's own response, and the call that is to be made instead if all is well."""
        self._pending = None
        try:
            response = self.resolve(event, context)
        except RecursionError as error:
            raise MalformedBody("body: nested too deeply") from error
        pending, self._pending = self._pending, None
        return response, pending

    def _no_route(self, _: NotFoundError) -> RouteResponse[str]:
        path = self.current_event.path
        routes = [*self._static_routes, *self._dynamic_routes]
        allowed = sorted({route.method for route in routes if route.rule.match(path)})
        if allowed:
            methods = ", ".join(allowed)
            return _refusal(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"{self.current_event.http_method} is not for this route; it takes {methods}",
                code="method_not_allowed",
                headers={"Allow": methods},
            )
        return _refusal(
            HTTPStatus.NOT_FOUND, "no such route; /api/docs lists them", code="route_not_found"
        )


def _arguments_of(handler: Callable[..., Any]) -> inspect.Signature:
    """The handler's signature with its annotations as types, and nothing to validate on return."""
    hints = get_type_hints(handler, include_extras=True)
    signature = inspect.signature(handler)
    parameters = [p.replace(annotation=hints[p.name]) for p in signature.parameters.values()]
    return inspect.Signature(parameters)


def _invalid(error: RequestValidationError) -> RouteResponse[str]:
    message, param, code = validation_error(error.errors())
    return _refusal(HTTPStatus.BAD_REQUEST, message, code=code, param=param)


def _refusal(
    status: HTTPStatus,
    message: str,
    *,
    code: str,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> RouteResponse[str]:
    body = json.dumps(error_body(status, message, code=code, param=param))
    sent = dict(headers or {})
    return RouteResponse(status_code=status, content_type=JSON, body=body, headers=sent)


def _error_reply(error: SynapseError) -> Reply:
    headers = {}
    if isinstance(error, Unavailable):
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, EngineUnavailable | EngineLost):
        headers["Retry-After"] = str(WORKER_BACK_S)
    return Reply(body_of(error), status_of(error), headers=headers)


def _routed(response: Mapping[str, Any]) -> Response:
    """The resolver's own response."""
    headers = {name.lower(): values for name, values in response["multiValueHeaders"].items()}
    return Response(int(response["statusCode"]), headers, response["body"] or "")


def _response(reply: Answered) -> Response:
    headers = {"content-type": [reply.content_type]}
    headers |= {name.lower(): [value] for name, value in reply.headers.items()}
    if isinstance(reply, StreamReply):
        return Response(int(reply.status), headers, chunks=reply.chunks, if_cut=reply.if_cut)
    return Response(int(reply.status), headers, reply.text())


def _text(content: bytes) -> tuple[str, bool]:
    """Content as a proxy response carries it, and whether that is in base64."""
    try:
        return content.decode(), False
    except UnicodeDecodeError:
        return b64encode(content).decode(), True


def _request_id(event: Mapping[str, Any]) -> str:
    return str((event.get("requestContext") or {}).get("requestId") or "unknown")


def _as_json(event: Mapping[str, Any]) -> Mapping[str, Any]:
    """The event with its body declared as JSON: what `curl -d` sends is labelled as a form.

    Raises:
        MalformedBody: it is no JSON object (the resolver would take a list's last element).
    """
    body = event.get("body")
    if not body:
        return event
    if not body.lstrip().startswith("{"):
        raise MalformedBody("body: must be a JSON object")
    headers = {**(event.get("headers") or {}), "content-type": JSON}
    headers.pop("Content-Type", None)
    return {**event, "headers": headers}
