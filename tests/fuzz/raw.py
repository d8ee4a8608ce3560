"""Bytes over sockets, and what comes back."""

from __future__ import annotations

import contextlib
import http.client
import io
import socket
import threading
from collections.abc import Sequence

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.bodies import Route
from tests.fuzz.raw_inputs import Raw, raw_inputs
from tests.fuzz.record import Record
from tests.fuzz.stage import Stage
from tests.fuzz.verdict import faults_of

PART = "raw HTTP"
CONNECTIONS = 4
"""At the same time: many of them end by waiting in vain."""

QUIET_S = 0.25
"""When nothing more is to be expected of a connection that stays open."""

INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"


def send_raw(
    stage: Stage, record: Record, routes: Sequence[Route], inputs: int, number: int
) -> None:
    """So many connections, each with something else; the same number makes the same ones."""
    # Streams and long answers are for the other parts: here it is about what is around them.
    asked = [route for route in routes if route[1] != "/api/auth/login"]
    share = -(-inputs // CONNECTIONS)
    threads = [
        threading.Thread(target=_some, args=(stage, record, asked, share, number * 31 + each))
        for each in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _some(stage: Stage, record: Record, routes: list[Route], count: int, number: int) -> None:
    caller = stage.callers["stranger"]
    foreign = stage.foreign(caller)

    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(raw_inputs(routes, caller.credential or ""))
    def run(raw: Raw) -> None:
        try:
            told = exchange(stage.server.port, raw)
        except OSError as error:
            record.asked(PART)
            record.wrong(PART, [f"no connection: {type(error).__name__}"], str(raw))
            return
        status, faults = judge(told, raw.is_head, foreign)
        record.asked(PART, status=status)
        if faults:
            record.wrong(PART, faults, f"{raw}\n    → {told[:600]!r}")

    run()


def exchange(port: int, raw: Raw) -> bytes:
    """Send the pieces; all that came back until the server hung up or fell silent."""
    told = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A server that has refused hangs up while it is still sent to.
        with contextlib.suppress(ConnectionError, TimeoutError):
            for piece in raw.pieces:
                connection.sendall(piece)
        with contextlib.suppress(ConnectionError, TimeoutError):
            connection.settimeout(QUIET_S)
            while chunk := connection.recv(65_536):
                told += chunk
    return bytes(told)


def judge(told: bytes, is_head: bool, foreign: Sequence[str]) -> tuple[int, list[str]]:
    """The first answer's status (0: none), and what is wrong with any of the answers."""
    first = 0
    faults: list[str] = []
    while told := told.removeprefix(INTERIM):
        try:
            response, rest = _next_answer(told, is_head)
            if is_head and rest and not rest.startswith(b"HTTP/"):
                # What was no HTTP is answered as if it had not been a HEAD.
                response, rest = _next_answer(told, False)
            told = rest
        except (http.client.HTTPException, ValueError) as error:
            return first, [*faults, f"an answer that is no HTTP: {type(error).__name__}"]
        status, headers, body = response
        first = first or status
        if body is not None:
            faults += faults_of(status, headers, body, foreign)
        is_head = False
    return first, faults


class _Bytes:
    """What `http.client` takes for a socket."""

    def __init__(self, told: bytes) -> None:
        self.file = io.BytesIO(told)

    def makefile(self, mode: str) -> io.BytesIO:
        return self.file


Answer = tuple[int, dict[str, str], bytes | None]


def _next_answer(told: bytes, is_head: bool) -> tuple[Answer, bytes]:
    """An answer and what follows it; the body is None where it has none, or was not awaited."""
    source = _Bytes(told)
    response = http.client.HTTPResponse(source, method="HEAD" if is_head else "GET")  # type: ignore[arg-type]
    # Closed by `http.client` with the answer's end; the rest is still to be read.
    rest = source.file
    rest.close = lambda: None  # type: ignore[method-assign]
    response.begin()
    body: bytes | None = None
    with contextlib.suppress(http.client.IncompleteRead):
        body = response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return (response.status, headers, None if is_head else body), rest.read()
