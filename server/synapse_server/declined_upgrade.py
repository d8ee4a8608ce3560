"""A request that offers another protocol, read on as what it is: HTTP/1.1 (RFC 9110, 7.8).

Java's HttpClient offers HTTP/2 (`Upgrade: h2c`) with all that it sends without TLS, and its bodies
with it. httptools takes what follows such a head for the other protocol, and reads no further.
"""

from __future__ import annotations

from collections.abc import Sequence

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

Headers = Sequence[tuple[bytes, bytes]]


def framing_of(headers: Headers) -> Headers:
    """Those of a head's fields that say how long the body is; none where there is no body."""
    return [
        (name, value)
        for name, value in headers
        if name == b"transfer-encoding" or (name == b"content-length" and int(value))
    ]


def parser_behind_head(
    protocol: HttpToolsProtocol, framing: Headers
) -> httptools.HttpRequestParser:
    """A parser for what follows a head that was read: the body that it announced, then requests."""
    callbacks = _Callbacks(protocol)
    parser = httptools.HttpRequestParser(callbacks)
    parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn has it
    if framing:
        callbacks.is_head_known = True
        fields = b"".join(b"%s: %s\r\n" % field for field in framing)
        parser.feed_data(b"POST / HTTP/1.1\r\n" + fields + b"\r\n")
        callbacks.is_head_known = False
    return parser


class _Callbacks:
    """Those of a protocol, without those for a head that it knows."""

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol
        self.is_head_known = False
        self.on_body = protocol.on_body
        self.on_message_complete = protocol.on_message_complete

    def on_message_begin(self) -> None:
        if not self.is_head_known:
            self._protocol.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self.is_head_known:
            self._protocol.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.is_head_known:
            self._protocol.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self.is_head_known:
            self._protocol.on_headers_complete()
