"""ASGI in front of the resolver: HTTP requests become the proxy events that it knows."""

from __future__ import annotations

import json
import secrets
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from synapse.api.errors import error_body
from synapse.api.resolver import Api

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 6 * 1024 * 1024
"""What a Lambda proxy event can carry, so that both targets refuse alike."""


class _TooLarge(Exception):
    """The body is larger than `MAX_BODY_BYTES`."""


class AsgiApp:
    """Hosts an `Api` under any ASGI server (lifespan off: the caller owns start and stop)."""

    def __init__(self, api: Api) -> None:
        self._api = api

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            raise ValueError(f"only HTTP is served here, not {scope['type']}")
        try:
            body = await _read(receive)
            event = _proxy_event(scope, body.decode())
        except _TooLarge:
            message = f"body: at most {MAX_BODY_BYTES} bytes are accepted"
            await _refuse(send, 413, message, "payload_too_large")
            return
        except UnicodeDecodeError:
            await _refuse(send, 400, "body: not UTF-8 text", "invalid_encoding")
            return
        response = await self._api.answer(event, None)
        await _respond(send, response)


async def _read(receive: Receive) -> bytes:
    """The whole body.

    Raises:
        _TooLarge: it is larger than allowed; the rest is not read.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise _TooLarge
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _proxy_event(scope: Scope, body: str) -> dict[str, Any]:
    """The request as API Gateway's Lambda proxy integration would send it."""
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
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
            "requestId": f"req-{secrets.token_hex(8)}",
        },
        "body": body,
        "isBase64Encoded": False,
    }


async def _refuse(send: Send, status: int, message: str, code: str) -> None:
    body = json.dumps(error_body(status, message, code=code))
    headers = {"Content-Type": ["application/json"], "Connection": ["close"]}
    await _respond(send, {"statusCode": status, "multiValueHeaders": headers, "body": body})


async def _respond(send: Send, response: dict[str, Any]) -> None:
    body = response["body"].encode()
    headers = list(_header_lines(response["multiValueHeaders"].items()))
    headers.append((b"content-length", str(len(body)).encode()))
    await send(
        {"type": "http.response.start", "status": response["statusCode"], "headers": headers}
    )
    await send({"type": "http.response.body", "body": body})


def _header_lines(items: Iterable[tuple[str, list[str]]]) -> Iterable[tuple[bytes, bytes]]:
    for name, values in items:
        for value in values:
            yield name.lower().encode("latin-1"), value.encode("latin-1")
