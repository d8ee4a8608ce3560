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
import logging
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar, get_type_hints

from aws_lambda_powertools.event_handler import APIGatewayRestResolver
from aws_lambda_powertools.event_handler import Response as RouteResponse
from aws_lambda_powertools.event_handler.api_gateway import Route
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.event_handler.openapi.exceptions import RequestValidationError

from synapse.api.bodies import as_json, parsed, refuse_encoded
from synapse.api.cors import Cors
from synapse.api.elsewhere import hint
from synapse.api.errors import INTERNAL_MESSAGE, error_body, validation_error
from synapse.api.gate import ASK, Identify, anyone, recognised
from synapse.api.incoming import Incoming, incoming_of, with_body, without_body
from synapse.api.replies import (
    JSON,
    Answered,
    Reply,
    Response,
    StreamReply,
    error_reply,
    refusal,
    response_of,
    routed,
    text_of,
)
from synapse.api.route_scopes import RouteScopes
from synapse.api.shortcuts import Arguments, Make, Shortcuts
from synapse.domain.access import Principal, Scope
from synapse.domain.errors import MalformedBody, SynapseError, Unauthenticated
from synapse.request_ids import REQUEST_ID

__all__ = ["Answered", "Api", "ClientGone", "Incoming", "Reply", "Response", "StreamReply"]

logger = logging.getLogger(__name__)
OURS = frozenset({"caller", "incoming"})
"""Arguments of handlers that do not come from the request's text."""

OPENAI_VERSION = "2020-10-01"
"""The version of OpenAI's API whose shapes are spoken under /v1."""


class ClientGone(Exception):
    """Nobody is left to answer: raised by what a front door puts around a call."""


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

    def __init__(
        self,
        identify: Identify = anyone,
        cors_origins: Iterable[str] = (),
        recognise: Identify | None = None,
    ) -> None:
        super().__init__(enable_validation=True, json_body_deserializer=parsed)
        self._pages = Cors(cors_origins)
        self._identify = identify
        self._recognise = recognise or identify
        self.curious: set[tuple[str, str]] = set()  # routes for everybody that ask who calls
        self._pending: _Pending | None = None
        self._caller: Principal | None = None
        self.scopes = RouteScopes()
        self._shortcuts = Shortcuts[_Pending]()
        self._receiving: list[tuple[str, re.Pattern[str]]] = []
        self.exception_handler(RequestValidationError)(_invalid)
        self.not_found(self._no_route)

    def handles(
        self,
        method: str,
        rule: str,
        *,
        scope: Scope | None,
        abandonable: bool = False,
        **openapi: Any,
    ) -> Callable[[Handler], Handler]:
        """Register an `async def` handler for `method` and `rule`.

        It is for callers who have the `scope`, or for everybody (None). An argument `caller`, a
        Principal, is who they are; where it is for everybody, None if that is not known. An
        `abandonable` handler is cancelled when its client goes away before the answer.
        """

        def register(handler: Handler) -> Handler:
            def pending(**arguments: Any) -> _Pending:
                return _Pending(functools.partial(handler, **arguments), abandonable)

            route, make = self._leave_pending(method, rule, scope, handler, pending, openapi)
            self._shortcuts.add(route, make)
            return handler

        return register

    def receives(
        self, method: str, rule: str, *, scope: Scope | None, **openapi: Any
    ) -> Callable[[Handler], Handler]:
        """Register a handler that takes the body as it comes in, as its argument `incoming`."""

        def register(handler: Handler) -> Handler:
            def pending(**arguments: Any) -> _Pending:
                incoming = incoming_of(self.current_event.raw_event)
                call = functools.partial(handler, incoming=incoming, **arguments)
                return _Pending(call, abandonable=False)

            self._leave_pending(method, rule, scope, handler, pending, openapi)
            self._receiving.append((method, self._compile_regex(rule)))
            return handler

        return register

    def receives_body(self, method: str, path: str) -> bool:
        """Whether that request's body is taken as it comes in."""
        return any(method == known and rule.match(path) for known, rule in self._receiving)

    def _leave_pending(
        self,
        method: str,
        rule: str,
        scope: Scope | None,
        handler: Callable[..., Any],
        pending: Callable[..., _Pending],
        openapi: Mapping[str, Any],
    ) -> tuple[Route, Make[_Pending]]:
        """Route to a function that does nothing but leave the validated call behind.

        Returns the route, and what makes the call of a caller and the handler's other arguments.
        """
        signature = _arguments_of(handler)
        asked = [p for p in signature.parameters.values() if p.name not in OURS]
        wants_caller = "caller" in signature.parameters
        self.scopes.add(method, rule, scope)
        if wants_caller and scope is None:
            self.curious.add((method, rule))

        def make(caller: Principal | None, arguments: Arguments) -> _Pending:
            if scope is not None:
                # Should the ways of matching a path ever differ, nobody passes by that.
                if caller is None:
                    raise Unauthenticated(ASK)
                caller.require(scope)
            return pending(**arguments, **({"caller": caller} if wants_caller else {}))

        @functools.wraps(handler)
        def leave(**arguments: Any) -> RouteResponse[None]:
            self._pending = make(self._caller, arguments)
            return RouteResponse(status_code=HTTPStatus.OK, content_type=JSON, body=None)

        leave.__signature__ = signature.replace(parameters=asked)  # type: ignore[attr-defined]
        self.route(rule, method, **openapi)(leave)
        routes = [*self._static_routes, *self._dynamic_routes]
        return next(route for route in routes if route.func is leave), make

    async def respond(
        self, event: Mapping[str, Any], context: Any, hold: Hold = _as_it_is
    ) -> Response:
        """The response to a Lambda proxy event.

        `hold` awaits an abandonable call; it may give up on it.

        Raises:
            ClientGone: `hold` did.
        """
        response = self._pages.preflight(event)
        if response is None:
            if event.get("httpMethod") == "HEAD":
                # All of a GET but its body, which front doors leave out (RFC 9110 §9.3.2).
                event = {**event, "httpMethod": "GET"}
            response = await self._respond(event, context, hold)
        self._pages.mark(event, response.headers)
        return response

    async def _respond(self, event: Mapping[str, Any], context: Any, hold: Hold) -> Response:
        started_s = time.perf_counter()
        request_id = _request_id(event)
        REQUEST_ID.set(request_id)
        try:
            method, path = str(event.get("httpMethod")), str(event.get("path"))
            caller = await self._let_in(method, path, event)
            refuse_encoded(event)
            if not self.receives_body(method, path):
                event = as_json(await with_body(event) if caller else without_body(event))
                started_s = time.perf_counter()  # how fast it was sent is its sender's business
            refused, pending = self._validated(event, context, caller)
            if pending is None:
                response = routed(refused)
            else:
                call = pending.call()
                response = response_of(await (hold(call) if pending.abandonable else call))
        except ClientGone:
            raise
        except SynapseError as error:
            response = response_of(error_reply(error))
        except Exception:
            logger.exception("request failed", extra={"request_id": request_id})
            status = HTTPStatus.INTERNAL_SERVER_ERROR
            body = error_body(status, INTERNAL_MESSAGE, code="internal_error")
            response = response_of(Reply(body, status))
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
                body, is_base64 = text_of(b"".join([chunk async for chunk in chunks]))
        return {
            "statusCode": response.status,
            "multiValueHeaders": response.headers,
            "body": body,
            "isBase64Encoded": is_base64,
        }

    async def _let_in(self, method: str, path: str, event: Mapping[str, Any]) -> Principal | None:
        """Who calls a route that is not for everybody, before anything else is looked at.

        Raises:
            Unauthenticated, Forbidden: the caller may not.
        """
        scope = self.scopes.of(method, path)
        if scope is None:
            is_curious = (method, path) in self.curious
            return await recognised(self._recognise, event) if is_curious else None
        caller = await self._identify(event)
        caller.require(scope)
        return caller

    def _validated(
        self, event: Mapping[str, Any], context: Any, caller: Principal | None
    ) -> tuple[dict[str, Any], _Pending | None]:
        """The resolver's own response, and the call that is to be made instead if all is well."""
        try:
            call = self._shortcuts.call(event, caller)
            if call is not None:
                return {}, call
            self._pending, self._caller = None, caller
            response = self.resolve(event, context)
        except RecursionError as error:
            raise MalformedBody("body: nested too deeply") from error
        pending, self._pending = self._pending, None
        return response, pending

    def _no_route(self, _: NotFoundError) -> RouteResponse[str]:
        path = self.current_event.path
        allowed = self._methods(path)
        if allowed:
            methods = ", ".join(sorted(allowed))
            return refusal(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"{self.current_event.http_method} is not for this route; it takes {methods}",
                code="method_not_allowed",
                headers={"Allow": methods},
            )
        message = hint(path, lambda other: bool(self._methods(other)))
        return refusal(HTTPStatus.NOT_FOUND, message, code="route_not_found")

    def _methods(self, path: str) -> set[str]:
        """Those by which there is a route at `path`."""
        routes = [*self._static_routes, *self._dynamic_routes]
        found = {route.method for route in routes if route.rule.match(path)}
        return found | {"HEAD"} if "GET" in found else found


def _arguments_of(handler: Callable[..., Any]) -> inspect.Signature:
    """The handler's signature with its annotations as types, and nothing to validate on return."""
    hints = get_type_hints(handler, include_extras=True)
    signature = inspect.signature(handler)
    parameters = [p.replace(annotation=hints[p.name]) for p in signature.parameters.values()]
    return inspect.Signature(parameters)


def _invalid(error: RequestValidationError) -> RouteResponse[str]:
    message, param, code = validation_error(error.errors())
    return refusal(HTTPStatus.BAD_REQUEST, message, code=code, param=param)


def _request_id(event: Mapping[str, Any]) -> str:
    return str((event.get("requestContext") or {}).get("requestId") or "unknown")
