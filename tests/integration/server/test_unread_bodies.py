"""Bodies of callers who are not let in, under a real uvicorn: nobody reads or waits for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI, AuthenticationError

from synapse.api import asgi
from synapse.api.asgi import AsgiApp, Message
from synapse.api.gate import bearer_of
from synapse.api.resolver import Api, Reply
from synapse.domain.access import ANYONE, REFUSED, Principal, Scope
from synapse.domain.errors import Unauthenticated
from synapse_server.http_protocol import HttpProtocol
from tests.serving import serving

MIB = 1024 * 1024
PATIENCE_S = 10.0
GOOD = "sk-syn-good"
POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"


async def with_the_key(event: Mapping[str, Any]) -> Principal:
    if bearer_of(event) != GOOD:
        raise Unauthenticated(REFUSED)
    return ANYONE


def an_api() -> Api:
    api = Api(with_the_key)

    @api.handles("POST", "/v1/chat/completions", scope=Scope.INFERENCE)
    async def chat() -> Reply:
        return Reply({"served": True})

    @api.handles("GET", "/open", scope=None)
    async def everybody() -> Reply:
        return Reply({"served": True})

    return api


@asynccontextmanager
async def serving_it() -> AsyncIterator[int]:
    """A server; its port."""
    async with serving(AsgiApp(an_api()), 30, http=HttpProtocol, ws="none") as (port, _):
        yield port


async def head_and_body(reader: asyncio.StreamReader) -> tuple[bytes, Any]:
    """The next answer, without waiting for the end of the connection."""
    async with asyncio.timeout(PATIENCE_S):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return head, json.loads(await reader.readexactly(length))


@pytest.mark.parametrize(
    ("request_head", "status", "code"),
    [
        (POST, 401, "invalid_api_key"),
        (POST + b"Authorization: Bearer sk-syn-bad\r\n", 401, "invalid_api_key"),
        (POST.replace(b"/v1/chat", b"/v1/chess"), 404, "route_not_found"),
        (POST.replace(b"POST", b"PUT"), 405, "method_not_allowed"),
    ],
)
@pytest.mark.parametrize("framing", [b"Content-Length: 6000000", b"Transfer-Encoding: chunked"])
async def test_who_is_not_let_in_is_told_before_a_byte_of_the_body_has_come(
    request_head: bytes, status: int, code: str, framing: bytes
) -> None:
    async with serving_it() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request_head + framing + b"\r\n\r\n")
        head, told = await head_and_body(reader)
        writer.close()

    assert head.startswith(b"HTTP/1.1 %d" % status)
    assert b"connection: close" in head
    assert told["error"]["code"] == code


async def test_nothing_of_the_body_is_asked_for_until_its_sender_is_let_in() -> None:
    received: list[Message] = []

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            assert not received
            assert message["status"] == 401

    async def receive() -> Message:
        message = {"type": "http.request", "body": b"x" * MIB, "more_body": len(received) < 5}
        received.append(message)
        return message

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b""}
    await AsgiApp(an_api())({**scope, "headers": [(b"content-length", b"6291456")]}, receive, send)

    assert len(received) == 6  # read and dropped, so that the client gets to read its answer


@pytest.mark.parametrize("is_chunked", [False, True])
async def test_a_client_that_sends_all_of_it_first_reads_its_refusal(is_chunked: bool) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(6):
            yield b"x" * MIB

    async with serving_it() as port, httpx.AsyncClient() as client:
        content = pieces() if is_chunked else b"x" * (6 * MIB)
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        refused = await client.post(url, content=content)
        again = await client.post(url, json={}, headers={"Authorization": f"Bearer {GOOD}"})

    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.json()["error"]["code"] == "invalid_api_key"
    assert again.json() == {"served": True}


async def test_openais_sdk_sees_the_refusal_of_a_large_request() -> None:
    async with (
        serving_it() as port,
        AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="sk-syn-bad") as client,
    ):
        with pytest.raises(AuthenticationError) as refused:
            await client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "x" * (5 * MIB)}]
            )

    assert refused.value.code == "invalid_api_key"


async def test_who_asks_first_is_refused_and_not_asked_to_go_on() -> None:
    async with serving_it() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 6000000\r\n\r\n")
        head, _ = await head_and_body(reader)
        writer.close()

    assert head.startswith(b"HTTP/1.1 401")


async def test_who_asks_first_and_has_a_key_is_asked_to_go_on() -> None:
    async with serving_it() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        key = f"Authorization: Bearer {GOOD}\r\n".encode()
        writer.write(POST + key + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        go_on = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        writer.write(b"{}")
        head, told = await head_and_body(reader)
        writer.close()

    assert go_on.startswith(b"HTTP/1.1 100")
    assert (head[:12], told) == (b"HTTP/1.1 200", {"served": True})


async def test_a_body_without_an_end_is_not_dropped_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asgi, "LINGER_BYTES", MIB)
    async with serving_it() as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(ConnectionError):
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    writer.write(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
                    await writer.drain()
        writer.close()


async def test_a_refusal_of_what_has_no_body_keeps_the_connection() -> None:
    async with serving_it() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(POST + b"Content-Length: 0\r\n\r\n")
        refused, _ = await head_and_body(reader)
        writer.write(b"GET /open HTTP/1.1\r\nHost: x\r\n\r\n")
        served, told = await head_and_body(reader)
        writer.close()

    assert refused.startswith(b"HTTP/1.1 401")
    assert (served[:12], told) == (b"HTTP/1.1 200", {"served": True})


async def test_what_is_sent_to_a_route_for_everybody_is_not_read() -> None:
    async with serving_it() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /open HTTP/1.1\r\nHost: x\r\nContent-Length: 6000000\r\n\r\n")
        head, told = await head_and_body(reader)
        writer.close()

    assert (head[:12], told) == (b"HTTP/1.1 200", {"served": True})
