"""The sender against real sockets: what it sends, and where it does not let itself be led."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpcore
import pytest

from synapse.adapters.web.guarded import GuardedNetwork, NotPublic
from synapse.adapters.web.lookups import Lookups
from synapse.adapters.web.sender import HttpSender
from synapse.domain.delivery import Answer
from synapse.domain.webhook_url import Allowed, WebhookUrl, url_of
from tests.integration.webhooks.certificates import contexts_for
from tests.integration.webhooks.receiver import Answering, Receiver, raw, receiver, status

HEADERS = {"webhook-id": "evt_1", "content-type": "application/json"}
BODY = '{"id":"evt_1","name":"Zoë"}'


def url_at(where: Receiver, path: str = "/hook?a=b") -> WebhookUrl:
    return url_of(f"http://{where.place}{path}", Allowed.of(where.place))


async def post(answer: Answering, timeout_s: float = 5.0) -> tuple[Answer, Receiver]:
    async with receiver(answer) as where:
        sender = HttpSender(time.time, timeout_s=timeout_s)
        return await sender.post("t", url_at(where), HEADERS, BODY), where


async def test_the_body_arrives_as_it_is_with_its_headers() -> None:
    answer, where = await post(status(204))

    (got,) = where.received
    assert answer == Answer(204)
    assert got.line == "POST /hook?a=b HTTP/1.1"
    assert got.body == BODY
    assert got.headers["webhook-id"] == "evt_1"
    assert got.headers["host"] == where.place
    assert got.headers["connection"] == "close"


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_failure_and_is_not_followed(code: int) -> None:
    async with receiver(status(200)) as other:
        answer, where = await post(status(code, f"location: http://{other.place}/"))

    assert answer == Answer(code, "redirects are not followed")
    assert (where.connections, other.connections) == (1, 0)


@pytest.mark.parametrize("code", [400, 404, 410, 429, 500, 503])
async def test_a_refusal_is_told_by_its_status(code: int) -> None:
    answer, _ = await post(status(code))

    assert answer == Answer(code)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("120", 120.0), ("0", 0.0), ("-1", None), ("soon", None), ("", None), ("9" * 40, None)],
)
async def test_a_receiver_says_when_to_come_again(value: str, seconds: float | None) -> None:
    answer, _ = await post(status(503, f"retry-after: {value}"))

    assert answer == Answer(503, "", seconds)


async def test_a_receiver_says_when_to_come_again_by_a_date() -> None:
    at = datetime.now(UTC) + timedelta(seconds=90)

    answer, _ = await post(status(429, f"Retry-After: {format_datetime(at, usegmt=True)}"))

    assert answer.retry_after_s is not None
    assert 80 < answer.retry_after_s <= 90


@pytest.mark.parametrize(
    "value",
    [
        "Mon, 01 Jan 2027 00:00:00 +99999999999999",
        "Mon, 01 Jan 2027 99999999999999999999:00:00 GMT",
        "Mon, 01 Jan 99999999999999999999 00:00:00 GMT",
        "Mon, 01 Jan 2027",
    ],
)
async def test_a_date_that_is_none_is_not_waited_for(value: str) -> None:
    answer, _ = await post(status(200, f"Retry-After: {value}"))

    assert answer == Answer(200)


async def test_who_does_not_answer_is_left_after_a_while() -> None:
    async def silent(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    answer, _ = await post(silent, timeout_s=0.3)

    assert answer == Answer(error="no answer within 0.3 s")


async def test_who_answers_a_byte_at_a_time_is_left_after_a_while() -> None:
    async def dribble(writer: asyncio.StreamWriter) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nx-long: " + b"a" * 30:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0.05)

    answer, _ = await post(dribble, timeout_s=0.3)

    assert answer == Answer(error="no answer within 0.3 s")


async def test_an_endless_answer_is_not_read() -> None:
    written = 0

    async def endless(writer: asyncio.StreamWriter) -> None:
        nonlocal written
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
            await writer.drain()
            written += 0x4000

    answer, _ = await post(endless)

    assert answer == Answer(200)
    # No more than lies in the sockets' buffers.
    assert written < 16 * 1024 * 1024


async def test_a_status_counts_although_the_rest_of_the_answer_never_comes() -> None:
    async def stalls(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 10\r\n\r\nabc")
        await writer.drain()
        await asyncio.Event().wait()

    answer, _ = await post(stalls)

    assert answer == Answer(202)


@pytest.mark.parametrize("text", ["", "HTTP/1.1 200", "no http\r\n\r\n", "HTTP/1.1 abc X\r\n\r\n"])
async def test_who_speaks_no_http_is_an_error_and_no_crash(text: str) -> None:
    answer, _ = await post(raw(text))

    assert answer.status is None
    assert answer.error.startswith("the connection broke")


async def test_headers_without_end_are_an_error_and_no_crash() -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n")
        while True:
            writer.write(b"x-more: " + b"a" * 4096 + b"\r\n")
            await writer.drain()

    answer, _ = await post(endless)

    assert answer.status is None and answer.error


async def test_where_nobody_listens_there_is_no_connection() -> None:
    async with receiver(status(200)) as where:
        gone = url_at(where)

    answer = await HttpSender(time.time).post("t", gone, HEADERS, BODY)

    assert answer.status is None
    assert answer.error.startswith("no connection")


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    async with receiver(status(500)) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://{proxy.place}")
        answer, _ = await post(status(200))

    assert answer == Answer(200)
    assert proxy.connections == 0


class Names:
    """A resolver whose answers change from one question to the next."""

    def __init__(self, *answers: Sequence[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def ask(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        return self.ask(host, port)

    @property
    def lookups(self) -> Lookups:
        return Lookups(ask=self.ask)


class NoNetwork(httpcore.AsyncNetworkBackend):
    """Notes where it was to connect to, and does not."""

    def __init__(self) -> None:
        self.connected: list[tuple[str, int]] = []

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        self.connected.append((host, port))
        raise httpcore.ConnectError("nobody there")


async def test_a_connection_is_made_to_the_address_that_was_judged() -> None:
    names, network = Names(["93.184.215.14", "2606:4700::1111"], ["127.0.0.1"]), NoNetwork()
    guarded = GuardedNetwork(is_allowed=False, resolve=names.resolve, inner=network)

    with pytest.raises(httpcore.ConnectError):
        await guarded.connect_tcp("rebinding.example", 443)

    assert names.asked == ["rebinding.example"]
    assert network.connected == [("93.184.215.14", 443), ("2606:4700::1111", 443)]


async def test_a_name_that_resolves_otherwise_the_second_time_leads_nowhere() -> None:
    names, network = Names(["93.184.215.14"], ["169.254.169.254"]), NoNetwork()
    guarded = GuardedNetwork(is_allowed=False, resolve=names.resolve, inner=network)

    with pytest.raises(httpcore.ConnectError):
        await guarded.connect_tcp("rebinding.example", 443)
    with pytest.raises(NotPublic):
        await guarded.connect_tcp("rebinding.example", 443)

    assert network.connected == [("93.184.215.14", 443)]


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["93.184.215.14", "10.0.0.1"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::a9fe:a9fe"],
        ["fe80::1%lo"],
        [],
    ],
)
async def test_nothing_is_sent_to_a_name_of_which_one_address_is_private(
    addresses: list[str],
) -> None:
    async with receiver(status(200)) as where:
        url = WebhookUrl(f"https://name.example:{where.port}/", "https", "name.example", where.port)
        answer = await HttpSender(time.time, lookups=Names(addresses).lookups).post(
            "t", url, HEADERS, BODY
        )

    assert answer.status is None
    assert answer.error == "the host has an address that is not public, or none"
    assert where.connections == 0


async def test_a_name_that_is_not_known_is_an_error_and_no_crash() -> None:
    def unknown(host: str, port: int) -> Sequence[str]:
        raise OSError("no such name")

    url = url_of("https://name.example/")
    answer = await HttpSender(time.time, lookups=Lookups(ask=unknown)).post("t", url, HEADERS, BODY)

    assert answer.status is None
    assert "cannot be resolved" in answer.error


async def test_the_certificate_must_be_the_hosts_although_an_address_is_connected_to(
    tmp_path: Path,
) -> None:
    serving, trusting = contexts_for("name.example", tmp_path)
    names = Names(["127.0.0.1"])
    async with receiver(status(200), serving) as where:
        sender = HttpSender(time.time, lookups=names.lookups, tls=trusting)
        allowed = Allowed.of(f"name.example:{where.port},other.example:{where.port}")
        good = url_of(f"https://name.example:{where.port}/x", allowed)
        other = url_of(f"https://other.example:{where.port}/x", allowed)

        taken = await sender.post("t", good, HEADERS, BODY)
        refused = await sender.post("t", other, HEADERS, BODY)
        untrusted = await HttpSender(time.time, lookups=names.lookups).post(
            "t", good, HEADERS, BODY
        )

    assert taken == Answer(200)
    assert refused.status is None and "CERTIFICATE_VERIFY_FAILED" in refused.error
    assert untrusted.status is None and "CERTIFICATE_VERIFY_FAILED" in untrusted.error
    assert [got.headers["host"] for got in where.received] == [f"name.example:{where.port}"]


def test_no_certificate_is_taken_on_trust() -> None:
    context = httpcore.default_ssl_context()

    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
