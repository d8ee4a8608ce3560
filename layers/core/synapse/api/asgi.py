"""ASGI in front of the resolver: HTTP requests become the proxy events that it knows.

A request whose client goes away is given up where its route allows that, and a stream is closed;
both end what was asked of the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    MutableMapping,
)
from typing import Any
from urllib.parse import parse_qs

from synapse.api.errors import error_body
from synapse.api.incoming import EVENT_KEY
from synapse.api.resolver import Answered, Api, ClientGone, Response
from synapse.domain.errors import BodyStalled

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LINGER_BYTES = 64 * 1024 * 1024
LINGER_S = 5.0
"""How much of a refused body is still read, and for how long: a connection that is closed on a
client while it sends is reset, and the answer is lost with it."""

STALLED_S = 60.0
"""How long a client may send nothing of a body that it has begun."""

STOPPING_MESSAGE = "the server is stopping; send the request again"


class AsgiApp:
    """Hosts an `Api` under any ASGI server (lifespan off: the caller owns start and stop).

    `context_header` names the header in which a trusted front door hands over its own account of
    a request, a JSON object: its id, and whose key it came with.
    """

    def __init__(self, api: Api, *, context_header: str = "") -> None:
        self._api = api
        self._context_header = context_header

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise ValueError(f"only HTTP is served here, not {scope['type']}")
        with contextlib.suppress(ClientGone):
            await self._serve(scope, receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = _Body(receive, is_over=not _has_body(scope))
        event = _proxy_event(scope, self._context_header) | {EVENT_KEY: body.chunks()}

        async def hold(call: Awaitable[Answered]) -> Answered:
            async with ended_by_client(receive):
                return await call

        try:
            response = await self._api.respond(event, None, hold)
        except asyncio.CancelledError:
            # Only a server that stops cancels a request. Its task ends with this answer.
            await _ask_to_come_again(send)
            return
        if response.chunks is not None:
            if scope["method"] == "HEAD":
                await response.chunks.aclose()
                await _start(send, response)
                await send({"type": "http.response.body", "body": b""})
                return
            async with ended_by_client(receive):
                await _send_chunks(send, response, response.chunks)
            return
        if not body.is_over:
            response.headers["connection"] = ["close"]
        await _send_whole(send, response, None if body.is_over else receive)


@contextlib.asynccontextmanager
async def ended_by_client(receive: Receive) -> AsyncIterator[None]:
    """A block that is cancelled when the client goes away.

    Enter it only once the request's body has been read.

    Raises:
        ClientGone: it went.
    """
    task = asyncio.current_task()
    assert task is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await receive())["type"] != "http.disconnect":
            pass
        gone = True
        task.cancel()

    watcher = asyncio.create_task(watch())
    try:
        yield
    except asyncio.CancelledError:
        if gone and task.uncancel() == 0:
            raise ClientGone from None
        raise
    finally:
        watcher.cancel()


async def _ask_to_come_again(send: Send) -> None:
    headers = {"content-type": ["application/json"], "connection": ["close"], "retry-after": ["1"]}
    headers["x-request-id"] = [new_request_id()]
    body = json.dumps(error_body(503, STOPPING_MESSAGE, code="server_stopping"))
    await _send_whole(send, Response(503, headers, body))


async def _drop_rest(receive: Receive) -> None:
    size = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while size < LINGER_BYTES:
                message = await receive()
                if not message.get("more_body", False):
                    return
                size += len(message["body"])


def new_request_id() -> str:
    """What finds a request in the log."""
    return f"req-{secrets.token_hex(8)}"


class _Body:
    """A body that is handed on while it comes in; nobody who does not ask for it waits for it."""

    def __init__(self, receive: Receive, *, is_over: bool) -> None:
        self._receive = receive
        self.is_over = is_over

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Its pieces.

        Raises:
            ClientGone: it breaks off.
            BodyStalled: it does not go on.
        """
        while not self.is_over:
            message = await _next(self._receive)
            self.is_over = not message.get("more_body", False)
            if chunk := message.get("body", b""):
                yield chunk


async def _next(receive: Receive) -> Message:
    try:
        async with asyncio.timeout(STALLED_S):
            message = await receive()
    except TimeoutError as error:
        raise BodyStalled(f"body: nothing more came for {STALLED_S:g} s") from error
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message


def _has_body(scope: Scope) -> bool:
    """Whether a request says that something follows its head (RFC 9112 §6.3)."""
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0"))
        for name, value in scope["headers"]
    )


def _proxy_event(scope: Scope, context_header: str) -> dict[str, Any]:
    """The request as API Gateway's Lambda proxy integration would send it, less its body."""
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    handed_over = headers.get(context_header) if context_header else None
    query = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True)
    return {
        "httpMethod": scope["method"],
        "path": scope["path"],
        "headers": {name: values[-1] for name, values in headers.items()},
        "multiValueHeaders": headers,
        "queryStringParameters": {name: values[-1] for name, values in query.items()},
        "multiValueQueryStringParameters": query,
        "requestContext": {
            "stage": "$default",
            "path": scope["path"],
            "requestId": new_request_id(),
            "identity": {"sourceIp": (scope.get("client") or ("",))[0]},
            **(json.loads(handed_over[-1]) if handed_over else {}),
        },
        "body": None,
        "isBase64Encoded": False,
    }


async def _send_whole(send: Send, response: Response, receive: Receive | None = None) -> None:
    body = response.body.encode()
    await _start(send, response, (b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.body", "body": body, "more_body": receive is not None})
    if receive is not None:
        await _drop_rest(receive)
        await send({"type": "http.response.body", "body": b""})


async def _send_chunks(send: Send, response: Response, chunks: AsyncGenerator[bytes, None]) -> None:
    """Each chunk as it comes; the next one is asked for once the client can take it."""
    async with contextlib.aclosing(chunks):
        await _start(send, response)
        try:
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except asyncio.CancelledError:
            if response.if_cut is None:
                raise
            await send({"type": "http.response.body", "body": response.if_cut()})
            return
        await send({"type": "http.response.body", "body": b""})


async def _start(send: Send, response: Response, *more: tuple[bytes, bytes]) -> None:
    headers = [*_header_lines(response.headers.items()), *more]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})


def _header_lines(items: Iterable[tuple[str, list[str]]]) -> Iterable[tuple[bytes, bytes]]:
    for name, values in items:
        for value in values:
            yield name.encode("latin-1"), value.encode("latin-1")
