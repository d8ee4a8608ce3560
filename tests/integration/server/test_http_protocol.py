"""Connections that send no HTTP, too much of it, or half of it, under a real uvicorn."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
import uvloop

from synapse.api.asgi import AsgiApp
from synapse.api.resolver import Api, Incoming, Reply, StreamReply
from synapse_server import http_protocol
from synapse_server.http_protocol import MAX_HEAD_BYTES, HttpProtocol
from tests.patience import PATIENCE_S
from tests.serving import serving

GET = b"GET /slow HTTP/1.1\r\nHost: x\r\n"
CLOSE = b"Connection: close\r\n"


class Served:
    """A server with one route, which answers once it is told to."""

    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.release.set()
        self.ended = asyncio.Event()
        self.port = 0

    def api(self) -> Api:
        api = Api()

        @api.handles("GET", "/slow", scope=None)
        async def slow() -> Reply:
            await self.release.wait()
            return Reply({"served": True})

        @api.handles("GET", "/stream", scope=None)
        async def stream() -> StreamReply:
            return StreamReply(self.words(), "text/plain")

        @api.receives("POST", "/echo", scope=None)
        async def echo(incoming: Incoming) -> Reply:
            return Reply({"sent": b"".join([chunk async for chunk in incoming.chunks]).decode()})

        return api

    async def words(self) -> AsyncGenerator[bytes, None]:
        try:
            while True:
                yield b"word "
                await asyncio.sleep(0.001)
        finally:
            self.ended.set()

    async def told(self, *pieces: bytes, pause_s: float = 0.0) -> bytes:
        """All that comes back until the connection is closed."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause_s)
            return await asyncio.wait_for(reader.read(), PATIENCE_S)
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def serving_one() -> AsyncIterator[Served]:
    served = Served()
    app = AsgiApp(served.api())
    async with serving(app, 30, http=HttpProtocol, ws="none") as (port, _):
        served.port = port
        try:
            yield served
        finally:
            served.release.set()


def refusal(told: bytes) -> tuple[int, dict[str, str]]:
    """Status and error of the one answer, which says that the connection ends."""
    head, _, body = told.partition(b"\r\n\r\n")
    assert head.count(b"HTTP/1.1 ") == 1, told
    assert b"content-type: application/json" in head
    assert b"connection: close" in head
    assert b"x-request-id: req-" in head
    error: dict[str, str] = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return int(head.split()[1]), error


@pytest.mark.parametrize(
    "sent",
    [
        b"nothing of the kind\r\n\r\n",
        b"\x16\x03\x01\x02\x00",
        GET + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET http://x.invalid HTTP/1.1\r\n\r\n",
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused_in_the_shape_of_all_errors(sent: bytes) -> None:
    async with serving_one() as served:
        status, error = refusal(await served.told(sent))

    assert (status, error["code"]) == (400, "invalid_http")


@pytest.mark.parametrize(
    "endless",
    [
        GET + b"X: ",
        GET + b"X: a\r\n",
        b"GET /slow?",
        GET + b"Transfer-Encoding: chunked\r\n\r\n0\r\nX: ",
        b"\r\n",
    ],
    ids=["a header", "headers", "a target", "trailers", "empty lines"],
)
async def test_endless_heads_and_trailers_are_cut_off(endless: bytes) -> None:
    async with serving_one() as served:
        served.release.clear()
        more = b"\r\n" * 4_000 if endless == b"\r\n" else endless[-3:] + b"a" * 8_000
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(endless)
        sent = 0
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not reader.at_eof():
                    writer.write(more)
                    sent += len(more)
                    await writer.drain()
                    await asyncio.sleep(0.001)
        except ConnectionError:
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    assert sent < 50 * MAX_HEAD_BYTES


async def test_a_head_that_comes_whole_is_measured_too() -> None:
    async with serving_one() as served:
        fits = GET + CLOSE + b"X: " + b"a" * (MAX_HEAD_BYTES - 100) + b"\r\n\r\n"
        too_large = GET + b"X: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n"

        assert b'{"served":true}' in await served.told(fits)
        status, error = refusal(await served.told(too_large))

    assert (status, error["code"]) == (431, "headers_too_large")


async def test_a_head_that_does_not_come_is_not_awaited_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.3)
    async with serving_one() as served:
        assert refusal(await served.told(GET))[0] == 408
        assert await served.told() == b""
        # Long enough for pieces that come one after the other, however busy the machine is.
        monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 2.0)
        again = await served.told(GET + b"\r\n", b"\r", pause_s=0.1)
        assert again.count(b"HTTP/1.1 200") == 1
        monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", PATIENCE_S)
        slow = await served.told(GET + CLOSE, b"\r\n", pause_s=0.1)
        assert b"HTTP/1.1 200" in slow


def test_a_head_that_came_while_the_loop_was_late_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the server's own loop: what keeps a reader busy keeps it from all sockets, not timers."""
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 1.0)

    async def asked() -> bytes:
        loop, (busy, other) = asyncio.get_running_loop(), socket.socketpair()
        async with serving_one() as served:
            with busy, other, socket.create_connection(("127.0.0.1", served.port)) as client:

                def is_busy() -> None:
                    loop.remove_reader(busy)
                    client.sendall(GET + CLOSE + b"\r\n")
                    time.sleep(1.5)

                loop.add_reader(busy, is_busy)
                await asyncio.sleep(0.1)  # the client is accepted
                other.send(b"x")
                return await asyncio.to_thread(client.recv, 1000)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert b"HTTP/1.1 200" in runner.run(asked())


async def test_an_answer_that_takes_long_is_not_cut_off_by_the_wait_for_heads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.1)
    async with serving_one() as served:
        served.release.clear()
        asking = asyncio.create_task(served.told(GET + CLOSE + b"\r\n"))
        await asyncio.sleep(0.4)
        served.release.set()

        assert b'{"served":true}' in await asking


@pytest.mark.parametrize("more", [b"", GET + b"\r\n", (GET + b"\r\n") * 2])
def test_a_client_that_goes_ends_its_stream_whatever_it_has_sent_behind_it(
    more: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def leave() -> None:
        async with serving_one() as served:
            reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
            writer.write(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n" + more)
            await reader.readuntil(b"word ")
            writer.transport.abort()
            await asyncio.wait_for(served.ended.wait(), PATIENCE_S)

    uvloop.run(leave())  # as the server does

    assert "Exception in ASGI" not in caplog.text


async def test_a_refusal_is_never_read_as_the_answer_to_the_request_before_it() -> None:
    async with serving_one() as served:
        served.release.clear()
        sent = [GET + b"\r\n", b"no HTTP at all\r\n\r\n", GET + b"\r\n"]
        asking = asyncio.create_task(served.told(*sent, pause_s=0.05))
        await asyncio.sleep(0.4)
        assert not asking.done()
        served.release.set()

        told = await asking

    assert told.endswith(b'{"served":true}')
    assert told.count(b"HTTP/1.1") == 1


OFFER = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\n"
)


@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
async def test_an_upgrade_is_not_made_and_the_connection_goes_on(protocol: bytes) -> None:
    offer = b"Connection: Upgrade\r\nUpgrade: " + protocol + b"\r\n\r\n"
    async with serving_one() as served:
        told = await served.told(GET + offer + GET + offer, GET + CLOSE + b"\r\n")

    assert told.count(b"HTTP/1.1 200") == told.count(b'{"served":true}') == 3


@pytest.mark.parametrize("pieces", [1, 2, 3, 10_000], ids="in {} pieces".format)
@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 11\r\n\r\nhello world",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    ],
    ids=["with its length", "chunked"],
)
async def test_the_body_of_a_request_that_offers_an_upgrade_is_read(
    body: bytes, pieces: int
) -> None:
    post = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
    empty = post + OFFER + b"Content-Length: 0\r\n\r\n"
    sent = (post + OFFER + body) * 2 + empty + post + CLOSE + body
    size = -(-len(sent) // pieces)
    async with serving_one() as served:
        told = await served.told(*(sent[at : at + size] for at in range(0, len(sent), size)))

    answers = [answer.partition(b"\r\n\r\n")[2] for answer in told.split(b"HTTP/1.1 200")[1:]]
    assert answers == [b'{"sent":"hello world"}'] * 2 + [b'{"sent":""}', b'{"sent":"hello world"}']


async def test_a_body_after_an_offer_that_breaks_is_refused() -> None:
    async with serving_one() as served:
        told = await served.told(GET + OFFER + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")

    assert refusal(told)[0] == 400


async def test_a_body_that_breaks_leaves_no_error_of_ours_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chunked = b"Transfer-Encoding: chunked\r\n\r\n"
    async with serving_one() as served:
        for body in (b"zz\r\n", b"1\r\nab"):
            assert refusal(await served.told(GET + chunked + body))[0] == 400

    assert "Exception in ASGI" not in caplog.text


async def test_who_comes_when_all_places_are_taken_is_hung_up_on_and_the_others_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_protocol, "most_connections", lambda: 2)
    async with serving_one() as served, asking(served), asking(served) as (_, leaving):
        with pytest.raises((ConnectionError, AssertionError)):
            await is_answered(served)

        leaving.close()
        deadline = asyncio.get_running_loop().time() + PATIENCE_S
        # The server may see a moment later that a place is free.
        while True:
            try:
                await is_answered(served)
                return
            except (ConnectionError, AssertionError):
                assert asyncio.get_running_loop().time() < deadline
                await asyncio.sleep(0.01)


@asynccontextmanager
async def asking(
    served: Served,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that has been answered and stays open."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        writer.write(GET + b"\r\n")
        assert b"200 OK" in await asyncio.wait_for(reader.readline(), PATIENCE_S)
        yield reader, writer
    finally:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def is_answered(served: Served) -> None:
    assert b"200 OK" in await served.told(GET + CLOSE + b"\r\n", pause_s=0.05)
