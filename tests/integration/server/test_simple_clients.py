"""Clients that know little of HTTP: version 1.0, and those that ask for the head alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import pytest

from synapse.api.asgi import AsgiApp
from synapse.api.resolver import Api, Reply, StreamReply
from synapse_server.http_protocol import HttpProtocol
from tests.patience import PATIENCE_S
from tests.serving import serving

PIECES = [b"data: one\n\n", b"data: two\n\n", b"data: [DONE]\n\n"]


def an_api() -> Api:
    api = Api()

    async def pieces() -> AsyncGenerator[bytes, None]:
        for piece in PIECES:
            yield piece
            await asyncio.sleep(0)

    @api.handles("GET", "/stream", scope=None)
    async def stream() -> StreamReply:
        return StreamReply(pieces(), "text/event-stream")

    @api.handles("GET", "/health", scope=None)
    async def health() -> Reply:
        return Reply({"status": "ok"})

    @api.handles("POST", "/work", scope=None)
    async def work() -> Reply:
        return Reply({})

    return api


@asynccontextmanager
async def served() -> AsyncIterator[int]:
    async with serving(AsgiApp(an_api()), 30, http=HttpProtocol, ws="none") as (port, _):
        yield port


async def told(port: int, *requests: bytes) -> tuple[bytes, bytes]:
    """Head and body of all that comes until the server closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(b"".join(requests))
        answer = await asyncio.wait_for(reader.read(), PATIENCE_S)
    finally:
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head.lower(), body


@pytest.mark.parametrize("more", [b"", b"Connection: keep-alive\r\n"])
async def test_a_stream_to_http_1_0_has_no_chunks_and_ends_with_the_connection(more: bytes) -> None:
    async with served() as port:
        head, body = await told(port, b"GET /stream HTTP/1.0\r\nHost: x\r\n", more, b"\r\n")

    assert b"transfer-encoding" not in head
    assert b"content-length" not in head
    assert b"connection: close" in head
    assert body == b"".join(PIECES)


async def test_an_answer_of_known_length_to_http_1_0_has_it() -> None:
    async with served() as port:
        head, body = await told(port, b"GET /health HTTP/1.0\r\nHost: x\r\n\r\n")

    assert b"content-length: 15" in head
    assert body == b'{"status":"ok"}'


async def test_a_stream_to_http_1_1_has_chunks() -> None:
    asked = b"GET /stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with served() as port:
        head, body = await told(port, asked)

    assert b"transfer-encoding: chunked" in head
    assert body.endswith(b"\r\n0\r\n\r\n")


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("path", [b"/health", b"/stream"])
async def test_the_head_of_an_answer_comes_alone(version: bytes, path: bytes) -> None:
    asked = b" %s HTTP/%s\r\nHost: x\r\nConnection: close\r\n\r\n" % (path, version)
    async with served() as port:
        whole, _ = await told(port, b"GET", asked)
        head, body = await told(port, b"HEAD", asked)

    assert (head.split(b"\r\n")[0], body) == (b"http/1.1 200 ok", b"")
    for name in (b"content-type", b"content-length"):
        assert _value(head, name) == _value(whole, name)


async def test_after_a_head_the_connection_serves_on() -> None:
    head = b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n"
    get = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    async with served() as port:
        _, rest = await told(port, head, get)

    assert rest.startswith(b"HTTP/1.1 200 OK")
    assert rest.endswith(b'\r\n\r\n{"status":"ok"}')


async def test_what_has_no_get_has_no_head() -> None:
    async with served() as port:
        refused, _ = await told(port, b"HEAD /work HTTP/1.0\r\nHost: x\r\n\r\n")

    assert b" 405 " in refused
    assert _value(refused, b"allow") == b"post"


def _value(head: bytes, name: bytes) -> bytes:
    return next((line for line in head.split(b"\r\n") if line.startswith(name)), b"").partition(
        b": "
    )[2]
