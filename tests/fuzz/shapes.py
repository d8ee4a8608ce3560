"""Every route, sent bodies of our own making: deep shapes that a schema does not lead to."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Callable, Sequence

from hypothesis import HealthCheck, Phase, given, seed, settings

from synapse.api.asgi import LINGER_BYTES
from tests.fuzz.bodies import Route
from tests.fuzz.record import Record
from tests.fuzz.requests import Sent, requests_to
from tests.fuzz.stage import Stage
from tests.fuzz.verdict import faults_of

PART = "shapes"
TIMEOUT_S = 30.0
PER_ROUND = 15
"""Requests to a route before the next one has its turn: what one made, others then find."""


def send_shapes(
    stage: Stage, record: Record, routes: Sequence[Route], inputs: int, number: int
) -> None:
    """At least so many requests, all routes in turn; the same number makes the same ones."""
    client = Client(stage, record)
    with contextlib.closing(client):
        sent, turn = 0, 0
        while sent < inputs:
            each = max(1, min(PER_ROUND, -(-(inputs - sent) // len(routes))))
            for route in routes:
                before = record.inputs[PART]
                _some(stage, route, client.send, each, number * 10_007 + turn)
                sent += record.inputs[PART] - before
            turn += 1


def _some(
    stage: Stage, route: Route, send: Callable[[Sent], None], count: int, number: int
) -> None:
    @seed(number)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(requests_to(route, stage))
    def run(sent: Sent) -> None:
        send(sent)

    run()


class Client:
    """One connection after another; what comes back is judged."""

    def __init__(self, stage: Stage, record: Record) -> None:
        self._stage = stage
        self._record = record
        self._connection = self._new()

    def send(self, sent: Sent) -> None:
        """Send it, judge the answer, and note secrets that it gives out."""
        where = " ".join(sent.route)
        try:
            status, headers, body = self._answer(sent)
        except (OSError, http.client.HTTPException) as error:
            self._record.asked(PART, sent.route)
            # So much of a refused body is read, and no more, for its sender to get the answer.
            if len(sent.body or b"") <= LINGER_BYTES:
                self._record.wrong(where, [f"no answer: {type(error).__name__}"], str(sent))
            self._connection.close()
            return
        self._record.asked(PART, sent.route, status)
        faults = faults_of(status, headers, body, self._stage.foreign(sent.caller))
        if status == 401 and sent.caller.credential is not None and "login" not in sent.target:
            faults.append("a caller is not known any more")
        if faults:
            self._record.wrong(where, faults, f"{sent}\n    → {status} {body[:400]!r}")
        if 200 <= status < 300 and headers.get("content-type") == "application/json":
            answer = json.loads(body)
            if isinstance(answer, dict):
                self._stage.learn(answer)
                if sent.method == "POST":
                    self._stage.learn_made(sent.route[1], sent.caller.tenant, answer)

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _answer(self, sent: Sent) -> tuple[int, dict[str, str], bytes]:
        try:
            return self._once(sent)
        except (ConnectionError, http.client.RemoteDisconnected):
            # An idle connection may be closed while it is taken up again.
            self._connection = self._new()
            return self._once(sent)

    def _once(self, sent: Sent) -> tuple[int, dict[str, str], bytes]:
        connection = self._connection
        connection.putrequest(sent.method, sent.target, skip_accept_encoding=True)
        for name, value in sent.headers.items():
            connection.putheader(name, value.encode("latin-1"))
        if sent.body is not None:
            connection.putheader("Content-Length", str(len(sent.body)))
        connection.endheaders(sent.body)
        response = connection.getresponse()
        body = response.read()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return response.status, headers, body

    def _new(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._stage.server.port, timeout=TIMEOUT_S)
