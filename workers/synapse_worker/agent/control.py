"""The agent's control API: models are brought and taken away, and the worker drained, over HTTP."""

import asyncio
import hmac
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import asdict
from http import HTTPStatus
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from synapse_worker.agent.agent import Agent
from synapse_worker.agent.refusals import BadRequest, refusal, worker_refusal
from synapse_worker.agent.snapshot import AgentState
from synapse_worker.config import check_model_name
from synapse_worker.errors import WorkerError

MAX_BODY_BYTES = 64 * 1024
MAX_WAIT_S = 3600.0
PROMPT_S = 0.1
"""What is over sooner than this is told at once, also to those who do not wait."""

Handler = Callable[[Request], Awaitable[Response]]


def control_api(agent: Agent, token: str = "") -> Starlette:
    """The API over one agent. With a `token`, all but `/health` wants it as a bearer."""
    control = _Control(agent)
    actions: Mapping[str, Handler] = {
        "/load_model": control.load_model,
        "/unload_model": control.unload_model,
        "/heartbeat": control.heartbeat,
        "/drain": control.drain,
    }
    routes = [
        Route(path, _guarded(handler, token), methods=["POST"]) for path, handler in actions.items()
    ]
    return Starlette(
        routes=[*routes, Route("/health", control.health, methods=["GET"])],
        exception_handlers={HTTPException: _http_error, Exception: _unforeseen},
    )


class _Control:
    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._under_way: set[asyncio.Task[Any]] = set()

    async def load_model(self, request: Request) -> Response:
        """200 once it answers; 202 if that takes longer than the caller waits."""
        body = await _body(request, {"model", "version"})
        model = _name(body, "model")
        version = None if body.get("version") is None else _name(body, "version")
        return await self._answer(request, self._agent.load(model, version), model)

    async def unload_model(self, request: Request) -> Response:
        """200 once it is out; 202 if that takes longer than the caller waits."""
        body = await _body(request, {"model"})
        model = _name(body, "model")
        return await self._answer(request, self._agent.unload(model), model)

    async def heartbeat(self, request: Request) -> Response:
        """How the worker is. A body may come along; nothing in it changes anything."""
        await _body(request, None)
        return JSONResponse(self._agent.snapshot().as_dict())

    async def drain(self, request: Request) -> Response:
        """200 once nothing is under way; 202 if that takes longer than the caller waits."""
        await _body(request, set())
        return await self._answer(request, self._agent.drain())

    async def health(self, _: Request) -> Response:
        """200 if the worker takes work, 503 and the reason if not."""
        snapshot = self._agent.snapshot()
        is_well = snapshot.state is not AgentState.DEGRADED
        status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
        return JSONResponse({"state": snapshot.state, "detail": snapshot.detail}, status)

    async def _answer(
        self, request: Request, work: Coroutine[Any, Any, Any], model: str | None = None
    ) -> Response:
        """Wait for it as long as the caller will; it goes on without one who does not."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        done, _ = await asyncio.wait({task}, timeout=max(PROMPT_S, _wait_s(request)))
        if done and isinstance(error := task.exception(), WorkerError):
            return worker_refusal(error)
        if done:
            task.result()
        status = HTTPStatus.OK if done else HTTPStatus.ACCEPTED
        return JSONResponse(self._told(model), status)

    def _told(self, model: str | None) -> dict[str, Any]:
        snapshot = self._agent.snapshot()
        if model is None:
            return {"state": snapshot.state, "detail": snapshot.detail}
        return next((asdict(known) for known in snapshot.models if known.name == model), {})

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        if not task.cancelled():
            task.exception()  # told to who waited, and by the heartbeat


def _guarded(handler: Handler, token: str) -> Handler:
    async def guarded(request: Request) -> Response:
        given = request.headers.get("authorization", "").encode()
        if token and not hmac.compare_digest(given, f"Bearer {token}".encode()):
            return refusal(HTTPStatus.UNAUTHORIZED, "The bearer token is wrong", "invalid_token")
        try:
            return await handler(request)
        except BadRequest as error:
            return refusal(HTTPStatus.BAD_REQUEST, str(error), "invalid_value", error.param)

    return guarded


async def _body(request: Request, fields: set[str] | None) -> dict[str, Any]:
    """The body as an object of these fields, or of any; nothing is an empty one."""
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > MAX_BODY_BYTES:
            raise BadRequest(f"The body is longer than {MAX_BODY_BYTES} bytes")
    try:
        body = json.loads(raw or b"{}")
    except (ValueError, RecursionError):
        raise BadRequest("The body is not JSON") from None
    if not isinstance(body, dict):
        raise BadRequest("The body is not a JSON object")
    unknown = sorted(set(body) - fields) if fields is not None else []
    if unknown:
        raise BadRequest(f"Unknown field {unknown[0]!r}", unknown[0])
    return body


def _name(body: Mapping[str, Any], field: str) -> str:
    value = body.get(field)
    if not isinstance(value, str):
        raise BadRequest(f"'{field}' must be a string", field)
    try:
        check_model_name(value)
    except WorkerError as error:
        raise BadRequest(str(error), field) from error
    return value


def _wait_s(request: Request) -> float:
    given = request.query_params.get("wait", "0")
    try:
        wait_s = float(given)
    except ValueError:
        wait_s = -1.0
    if not 0 <= wait_s <= MAX_WAIT_S:
        raise BadRequest(f"'wait' must be from 0 to {MAX_WAIT_S:.0f} seconds", "wait")
    return wait_s


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return refusal(error.status_code, error.detail)


async def _unforeseen(_: Request, __: Exception) -> Response:
    """Nothing of it is told; the log has it."""
    return refusal(HTTPStatus.INTERNAL_SERVER_ERROR, "Something went wrong in the agent")
