"""Answers of unknown length to HTTP/1.0: they end with the connection (RFC 9112 §6.1, §6.3)."""

from __future__ import annotations

from uvicorn._types import (
    ASGI3Application,
    ASGIReceiveCallable,
    ASGISendCallable,
    ASGISendEvent,
    Scope,
)
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


def ended_by_closing(cycle: RequestResponseCycle, app: ASGI3Application) -> ASGI3Application:
    """The app as it answers a client that knows no chunks, nor keeps its connection."""

    async def answering(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        is_of_unknown_length = False

        async def without_chunks(message: ASGISendEvent) -> None:
            nonlocal is_of_unknown_length
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message.get("headers", ())}
                is_of_unknown_length = b"content-length" not in names
                if is_of_unknown_length:
                    cycle.chunked_encoding = False
            elif message["type"] == "http.response.body" and is_of_unknown_length:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, without_chunks)

    return answering
