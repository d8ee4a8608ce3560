"""The ASGI app under a real uvicorn: clients that leave or dawdle, a server that stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import pytest
import uvicorn

from synapse.api import asgi
from synapse.api.asgi import AsgiApp
from synapse.api.resolver import Api, Incoming, Reply, StreamReply
from synapse.domain.access import Scope
from synapse.domain.errors import PayloadTooLarge
from tests.patience import PATIENCE_S, until
from tests.serving import serving

CUT = b'data: {"error":"stopping"}\n\n'


@dataclass
class Routes:
    """An API whose routes tell what becomes of them."""

    closed: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    started: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    sent: int = 0

    def api(self) -> Api:
        api = Api()

        @api.handles("GET", "/v1/stream", scope=None)
        async def stream() -> StreamReply:
            return StreamReply(self.chunks(), "text/event-stream", if_cut=lambda: CUT)

        @api.handles("GET", "/three", scope=None)
        async def three() -> StreamReply:
            async def chunks() -> AsyncGenerator[bytes, None]:
                for number in range(3):
                    yield b"\xff%d" % number

            return StreamReply(chunks(), "application/octet-stream")

        @api.handles("GET", "/held", scope=None, abandonable=True)
        async def held() -> Reply:
            self.started.set()
            try:
                await self.release.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            return Reply({})

        @api.handles("GET", "/durable", scope=None)
        async def durable() -> Reply:
            self.started.set()
            await self.release.wait()
            self.finished.set()
            return Reply({})

        @api.handles("PUT", "/known", scope=Scope.BATCHES)
        async def known() -> Reply:
            return Reply({})

        return api

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                self.sent += 1
                yield b"data: %s\n\n" % (b"x" * 65_536 if self.release.is_set() else b"x")
                await asyncio.sleep(0.001)
        finally:
            self.closed.set()


@asynccontextmanager
async def serving_at(app: AsgiApp) -> AsyncIterator[tuple[str, uvicorn.Server]]:
    async with serving(app) as (port, server):
        yield f"http://127.0.0.1:{port}", server


async def _soon(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), PATIENCE_S)


async def _request(url: str, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=4096)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    return reader, writer


async def test_a_stream_comes_piece_by_piece_and_its_connection_is_used_again() -> None:
    routes = Routes()
    async with serving_at(AsgiApp(routes.api())) as (url, _), httpx.AsyncClient() as client:
        first = await client.get(f"{url}/three")
        second = await client.get(f"{url}/three")

    assert first.content == second.content == b"\xff0\xff1\xff2"
    assert first.headers["transfer-encoding"] == "chunked"
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


async def test_a_killed_client_closes_the_stream_and_leaves_no_task() -> None:
    routes = Routes()
    async with serving_at(AsgiApp(routes.api())) as (url, _):
        before = len(asyncio.all_tasks())
        reader, writer = await _request(url, "/v1/stream")
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"data: x")
        writer.transport.abort()
        await _soon(routes.closed)

        assert b"openai-version: 2020-10-01" in head
        await until(lambda: len(asyncio.all_tasks()) == before)


async def test_a_client_that_reads_slowly_holds_up_its_own_stream_only() -> None:
    routes = Routes()
    routes.release.set()  # large chunks
    async with serving_at(AsgiApp(routes.api())) as (url, _), httpx.AsyncClient() as client:
        reader, writer = await _request(url, "/v1/stream")
        await reader.readuntil(b"\r\n\r\n")
        produced = -1
        async with asyncio.timeout(PATIENCE_S):
            while routes.sent != produced:  # until it is held up
                produced = routes.sent
                await asyncio.sleep(0.3)

        assert (await client.get(f"{url}/three")).status_code == 200
        writer.transport.abort()
        await _soon(routes.closed)


async def test_an_abandonable_call_is_cancelled_when_its_client_goes() -> None:
    routes = Routes()
    async with serving_at(AsgiApp(routes.api())) as (url, _):
        _, writer = await _request(url, "/held")
        await _soon(routes.started)
        writer.close()
        await _soon(routes.cancelled)


async def test_any_other_call_is_finished_although_nobody_waits_for_it() -> None:
    routes = Routes()
    async with serving_at(AsgiApp(routes.api())) as (url, _):
        _, writer = await _request(url, "/durable")
        await _soon(routes.started)
        writer.close()
        await asyncio.sleep(0.05)
        routes.release.set()
        await _soon(routes.finished)


async def test_a_stopping_server_ends_open_streams_with_its_last_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    routes = Routes()
    async with (
        serving_at(AsgiApp(routes.api())) as (url, server),
        httpx.AsyncClient() as client,
        client.stream("GET", f"{url}/v1/stream") as response,
    ):
        parts = response.aiter_bytes()
        await anext(parts)
        server.should_exit = True
        rest = b"".join([part async for part in parts])

    assert rest.endswith(CUT)
    assert routes.closed.is_set()
    assert "Traceback" not in caplog.text


async def test_a_stopping_server_asks_who_still_waits_to_come_again() -> None:
    routes = Routes()
    async with serving_at(AsgiApp(routes.api())) as (url, server), httpx.AsyncClient() as client:
        answer = asyncio.create_task(client.get(f"{url}/durable"))
        await _soon(routes.started)
        server.should_exit = True
        response = await answer

    assert response.status_code == 503
    assert response.json()["error"]["code"] == "server_stopping"
    assert response.headers["retry-after"] == "1"


async def test_a_route_that_receives_its_body_gets_it_past_the_limit_of_the_others() -> None:
    sizes: list[tuple[str, int]] = []
    api = Routes().api()

    @api.receives("PUT", "/raw/<name>", scope=Scope.BATCHES)
    async def take(incoming: Incoming, name: str) -> Reply:
        sizes.append((name, sum([len(chunk) async for chunk in incoming.chunks])))
        return Reply({"type": incoming.headers["content-type"]})

    async def body() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield b"x" * 1024 * 1024

    async with serving_at(AsgiApp(api)) as (url, _), httpx.AsyncClient() as client:
        headers = {"Content-Type": "application/x-thing"}
        taken = await client.put(f"{url}/raw/file", content=body(), headers=headers)
        other = await client.put(f"{url}/known", content=body())

    assert taken.json() == {"type": "application/x-thing"}
    assert taken.headers["x-request-id"]
    assert sizes == [("file", 8 * 1024 * 1024)]
    assert (other.status_code, other.json()["error"]["code"]) == (413, "payload_too_large")


async def test_an_error_before_the_end_of_the_body_reaches_the_client() -> None:
    api = Routes().api()

    @api.receives("PUT", "/raw", scope=Scope.BATCHES)
    async def take(incoming: Incoming) -> Reply:
        await anext(incoming.chunks)
        raise PayloadTooLarge("body: enough")

    async with serving_at(AsgiApp(api)) as (url, _), httpx.AsyncClient() as client:
        refused = await client.put(f"{url}/raw", content=b"x" * 8 * 1024 * 1024)

    assert (refused.status_code, refused.json()["error"]["message"]) == (413, "body: enough")
    assert refused.headers["connection"] == "close"


async def test_a_client_that_leaves_while_it_sends_ends_the_handler() -> None:
    api, ended = Routes().api(), asyncio.Event()

    @api.receives("PUT", "/raw", scope=Scope.BATCHES)
    async def take(incoming: Incoming) -> Reply:
        try:
            async for _ in incoming.chunks:
                pass
        finally:
            ended.set()
        return Reply({})

    async with serving_at(AsgiApp(api)) as (url, _):
        port = int(url.rsplit(":", 1)[1])
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"PUT /raw HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome")
        await writer.drain()
        writer.close()
        await asyncio.wait_for(ended.wait(), PATIENCE_S)


@pytest.mark.parametrize("path", ["/raw", "/known"])
async def test_a_body_that_does_not_go_on_is_given_up(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "STALLED_S", 0.2)
    monkeypatch.setattr(asgi, "LINGER_S", 0.2)
    api = Routes().api()

    @api.receives("PUT", "/raw", scope=Scope.BATCHES)
    async def take(incoming: Incoming) -> Reply:
        return Reply({"size": sum([len(chunk) async for chunk in incoming.chunks])})

    async with serving_at(AsgiApp(api)) as (url, _):
        host, port = url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nsome"
        writer.write(head.encode())
        told = await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.close()

    assert told.startswith(b"HTTP/1.1 408")
    assert b'"request_timeout"' in told
