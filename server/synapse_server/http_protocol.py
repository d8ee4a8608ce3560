"""HTTP/1.1 over a connection: uvicorn's, with bounds on what it would wait for or keep for ever.

It also refuses in the shape of all our errors, and never writes into another request's answer.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from synapse.api.asgi import new_request_id
from synapse.api.errors import error_body
from synapse_server.declined_upgrade import framing_of, parser_behind_head
from synapse_server.descriptors import most_connections
from synapse_server.head_with_body import HeadWithBody
from synapse_server.http_1_0 import ended_by_closing

MAX_HEAD_BYTES = 64 * 1024
"""Of a request's target and headers, of its trailers, and of what else is no body."""

HEAD_TIMEOUT_S = 30.0
"""How long a client may take for a request's head."""

LAST_LOOK_S = 0.05
"""Then what lies in the socket is read: it came in time if the loop was late to read it."""


class _Refused(Exception):
    """The request is not read any further."""


class HttpProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._refusal = (400, "the request is no HTTP/1.1", "invalid_http")
        self._is_head_open = False
        self._is_deaf = False
        self._first: RequestResponseCycle | None = None  # the one that is being answered
        self._has_moved = False
        self._idle_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            self._is_deaf = True
            transport.abort()
            return
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        self._end_cycles()  # uvicorn tells only the last of those that were sent on the line
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came; whatever is wrong with it ends the connection."""
        self._unset_keepalive_if_required()
        if self._is_deaf:
            return
        self._has_moved = False
        try:
            self._feed(data)
            self._bound_idle(len(data))
        except (httptools.HttpParserError, _Refused):
            self._refuse()
        is_awaited = self._is_head_open or self._idle_bytes > 0
        if self._head_timer is None and is_awaited and not self._is_deaf:
            self._expect_head()

    def _feed(self, data: bytes) -> None:
        """Parse it as HTTP/1.1, whatever else a request offers: nothing is upgraded to here."""
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                self.parser = parser_behind_head(self, framing_of(self.headers))
                data = data[offer.args[0] :]

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_head_open = self._has_moved = True

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES:
            self._too_large()
        super().on_headers_complete()
        self._is_head_open = False
        self._has_moved = True
        self._stop_waiting()

    def on_body(self, body: bytes) -> None:
        self._has_moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._has_moved = True
        if not (self.parser.should_upgrade() and framing_of(self.headers)):
            super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._first = cycle
        if cycle.scope["method"] != "HEAD":
            cycle.transport = HeadWithBody(cycle.transport, self.loop)
        if cycle.scope["http_version"] == "1.0":
            app = ended_by_closing(cycle, app)
        super()._start_asgi_task(cycle, app)

    def _bound_idle(self, size: int) -> None:
        """Bound what the parser gathers before it calls: it keeps each header until its end."""
        self._idle_bytes = 0 if self._has_moved else self._idle_bytes + size
        if self._idle_bytes > MAX_HEAD_BYTES:
            self._too_large()

    def _too_large(self) -> None:
        message = f"headers: at most {MAX_HEAD_BYTES} bytes are accepted"
        self._refusal = (431, message, "headers_too_large")
        raise _Refused

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self._look)

    def _look(self) -> None:
        self._head_timer = self.loop.call_later(LAST_LOOK_S, self._waited)

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _waited(self) -> None:
        """The head did not come; while another request is being answered, that is no matter."""
        self._head_timer = None
        if self.transport.is_closing() or self.timeout_keep_alive_task is not None:
            return
        if self._is_answering():
            self._expect_head()
        elif self._is_head_open:
            message = f"the request's head did not come within {HEAD_TIMEOUT_S:g} s"
            self._refusal = (408, message, "request_timeout")
            self._refuse()
        else:
            self.transport.close()

    def _is_answering(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # none until there was a request
        return cycle is not None and not cycle.response_complete

    def _refuse(self) -> None:
        """Answer with an error, unless that would be read as another request's answer."""
        if self._is_head_open and self._is_answering():
            # Those before it are answered, then the connection ends.
            self._is_deaf = True
            self.cycle.keep_alive = False
            return
        is_begun = self._is_answering() and self.cycle.response_started
        if not (self.transport.is_closing() or is_begun or self.pipeline):
            self.transport.write(self._refusal_text())
        self._end_cycles()  # else they would write to what is closed
        self.transport.close()

    def _end_cycles(self) -> None:
        """Let all whose answers would come after this know that nobody is there to read them."""
        first = [] if self._first is None else [self._first]
        for cycle in (*first, *(cycle for cycle, _ in self.pipeline)):
            cycle.disconnected = True
            cycle.message_event.set()

    def _refusal_text(self) -> bytes:
        status, message, code = self._refusal
        body = json.dumps(error_body(status, message, code=code)).encode()
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"connection", b"close"),
            (b"x-request-id", new_request_id().encode()),
        ]
        lines = b"".join(b"%s: %s\r\n" % header for header in headers)
        return STATUS_LINE[status] + lines + b"\r\n" + body
