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

MAX_BODY_BYTES = 6 * 1024 * 1024
"""What a Lambda proxy event can carry, so that both targets refuse alike."""

LINGER_BYTES = 64 * 1024 * 1024
LINGER_S = 5.0
"""How much of a refused body is still read, and for how long: a connection that is closed on a
client while it sends is reset, and the answer is lost with it."""

STALLED_S = 60.0
"""How long a client may send nothing of a body that it has begun."""

STOPPING_MESSAGE = "the server is stopping; send the request again"


class _TooLarge(Exception):
    """The body is larger than `MAX_BODY_BYTES`."""


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
        try:
            if self._api.receives_body(scope["method"], scope["path"]):
                await self._serve_incoming(scope, receive, send)
            else:
                await self._serve(scope, receive, send)
        except ClientGone:
            return

    async def _serve_incoming(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request whose handler takes the body itself, past `MAX_BODY_BYTES`."""
        body = _Body(receive)
        event = _proxy_event(scope, "", self._context_header) | {EVENT_KEY: body.chunks()}
        try:
            response = await self._api.respond(event, None)
        except asyncio.CancelledError:
            await refuse(send, 503, STOPPING_MESSAGE, "server_stopping", retry_after_s=1)
            return
        if not body.is_over:
            response.headers["connection"] = ["close"]
        await _send_whole(send, response, None if body.is_over else receive)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await _read(receive)
            event = _proxy_event(scope, body.decode(), self._context_header)
        except _TooLarge:
            message = f"body: at most {MAX_BODY_BYTES} bytes are accepted"
            await refuse(send, 413, message, "payload_too_large", receive=receive)
            return
        except BodyStalled as error:
            await refuse(send, 408, error.message, error.code)
            return
        except UnicodeDecodeError:
            await refuse(send, 400, "body: not UTF-8 text", "invalid_encoding")
            return

        async def hold(call: Awaitable[Answered]) -> Answered:
            async with ended_by_client(receive):
                return await call

        try:
            response = await self._api.respond(event, None, hold)
        except asyncio.CancelledError:
            # Only a server that stops cancels a request. Its task ends with this answer.
            await refuse(send, 503, STOPPING_MESSAGE, "server_stopping", retry_after_s=1)
            return
        if response.chunks is None:
            await _send_whole(send, response)
            return
        async with ended_by_client(receive):
            await _send_chunks(send, response, response.chunks)


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


async def refuse(
    send: Send,
    status: int,
    message: str,
    code: str,
    *,
    retry_after_s: int | None = None,
    receive: Receive | None = None,
) -> None:
    """Answer with an error and close the connection.

    Give `receive` if the body was not read to its end: of the rest, some is read and dropped.
    """
    headers = {"content-type": ["application/json"], "connection": ["close"]}
    headers["x-request-id"] = [new_request_id()]
    if retry_after_s is not None:
        headers["retry-after"] = [str(retry_after_s)]
    body = json.dumps(error_body(status, message, code=code))
    await _send_whole(send, Response(status, headers, body), receive)


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
    """A body that is handed on while it comes in."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.is_over = False

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


async def _read(receive: Receive) -> bytes:
    """The whole body.

    Raises:
        _TooLarge: it is larger than allowed; the rest is not read.
        ClientGone: it breaks off.
        BodyStalled: it does not go on.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await _next(receive)
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise _TooLarge
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _proxy_event(scope: Scope, body: str, context_header: str) -> dict[str, Any]:
    """The request as API Gateway's Lambda proxy integration would send it."""
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
        "body": body,
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
            if not response.if_cut:
                raise
            await send({"type": "http.response.body", "body": response.if_cut})
            return
        await send({"type": "http.response.body", "body": b""})


async def _start(send: Send, response: Response, *more: tuple[bytes, bytes]) -> None:
    headers = [*_header_lines(response.headers.items()), *more]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})


def _header_lines(items: Iterable[tuple[str, list[str]]]) -> Iterable[tuple[bytes, bytes]]:
    for name, values in items:
        for value in values:
            yield name.encode("latin-1"), value.encode("latin-1")
