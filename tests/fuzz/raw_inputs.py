"""What comes over a connection, byte by byte: HTTP that is wrong, odd, or never ends."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tests.fuzz.bodies import Route
from tests.fuzz.requests import PARAMETER

BODY = b'{"model": "echo", "prompt": "raw"}'
METHODS = (
    *(b"GET", b"POST", b"DELETE", b"HEAD", b"OPTIONS", b"get", b"", b"G\0T", b"GET\t", b"CONNECT"),
    *(b"PRI", b"A" * 30, b"\xff", b"QUERY", b"M-SEARCH", b" POST"),
)
TARGETS = (
    *(
        b"/%ff%fe",
        b"/\xff\xfe",
        b"/\xc0\xaf",
        b"//",
        b"/..",
        b"/a b",
        b"*",
        b"",
        b"?",
        b"/#a",
        b"/%",
    ),
    *(
        b"http://127.0.0.1/health",
        b"http://x.invalid/health",
        b"https:///",
        b"http://[::1",
        b"//a/b",
    ),
    *(b"x.invalid:443", b"/health?%00", b"/" + b"a" * 70_000, b"/%00", b"/\0", b"/results/%2e%2e"),
    *(b"/results/" + b"\xed\xa0\x80", b"/health?" + b"a=b&" * 20_000, b"\\health", b"/;/health"),
)
VERSIONS = (
    *(b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.1 "),
    *(b"", b"http/1.1", b"HTTP/11", b"HTTP/-1.1", b"HTTQ/1.1", b"HTTP/1.1\0"),
)
HEADER_LINES = (
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: 34\r\nContent-Length: 34",
    *(b"Content-Length: " + size for size in (b"-1", b"+34", b"0x22", b"34, 34", b"9" * 40, b"")),
    *(
        b"Content-Length: " + size
        for size in (b"3 4", b"1e1", b"\xc2\xb2", b"34;", b"18446744073709551617")
    ),
    b"Transfer-Encoding: chunked\r\nContent-Length: 34",
    *(
        b"Transfer-Encoding: " + how
        for how in (b"gzip, chunked", b"identity", b"xchunked", b"chunked, chunked")
    ),
    *(b"Transfer-Encoding: " + how for how in (b"", b"\x0bchunked", b"Chunked", b"chunked\x00")),
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding\r\n : chunked",
    *(b"Content-Encoding: " + how for how in (b"gzip", b"br", b"x, y", b"deflate")),
    *(b"Expect: " + what for what in (b"100-continue", b"100-Continue", b"200-ok", b"")),
    *(
        b"Connection: " + how
        for how in (b"close", b"keep-alive", b"upgrade, close", b"close, close")
    ),
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAA",
    b"Host: a\r\nHost: b",
    *(b"Host:" + host for host in (b"", b" \xff", b" a b", b" [::1", b" " + b"h" * 5_000)),
    b"X: " + b"a" * 300_000,
    b"\r\n".join(b"X-%d: a" % number for number in range(3_000)),
    b"A" * 70_000 + b": b",
    *(b": empty", b"no colon", b" folded: a", b"X: a\r\n folded", b"X: a\nY: b", b"X: a\rY: b"),
    *(b"X: \0", b"X: \xff\xfe", b"X\x7f: a", b"X\xc3\xa9: a", b"\xef\xbb\xbfX: a", b"X: \x1b[31m"),
    *(b"Authorization: Bearer \xff", b"Authorization: Bearer a\r\nAuthorization: Bearer b"),
    *(b"Content-Type: \0", b"Content-Type: multipart/form-data", b"Trailer: X", b"TE: trailers"),
)
CHUNKS = (
    b"22\r\n" + BODY + b"\r\n0\r\n\r\n",
    b"22;a=b\r\n" + BODY + b"\r\n0\r\nX: trailer\r\n\r\n",
    *(
        size + b"\r\n" + BODY + b"\r\n0\r\n\r\n"
        for size in (b"5", b"ff", b"-1", b"0x22", b"g", b"")
    ),
    *(
        size + b"\r\n" + BODY + b"\r\n0\r\n\r\n"
        for size in (b"FFFFFFFFFFFFFFFF", b"1" + b"0" * 20, b" 22")
    ),
    b"22;" + b"a" * 70_000 + b"\r\n" + BODY + b"\r\n0\r\n\r\n",
    b"22\n" + BODY + b"\n0\n\n",
    b"".join(b"1\r\n%c\r\n" % byte for byte in BODY) + b"0\r\n\r\n",
    b"22\r\n" + BODY + b"\r\n",
    b"0\r\n" + b"X: " + b"a" * 100_000 + b"\r\n\r\n",
    b"0\r\n\r\n" + b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
)
GREETINGS = (
    *(
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0" * 500,
    ),
    *(
        b"SSH-2.0-x\r\n",
        b"\r\n\r\n\r\n",
        b"\n",
        b"GET",
        b"{}",
        b"GET /health\r\n\r\n",
        b"\xff" * 9_000,
    ),
    *(b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2\r\nGET /health HTTP/1.1\r\n\r\n", b"a" * 200_000),
)


@dataclass(frozen=True)
class Raw:
    """Pieces to send, one after another; `head_only` tells a reader of HEAD's answers."""

    pieces: tuple[bytes, ...]
    is_head: bool

    def __str__(self) -> str:
        return " | ".join(repr(piece[:400]) for piece in self.pieces)


def raw_inputs(routes: list[Route], credential: str) -> SearchStrategy[Raw]:
    """All kinds; many start as a good request of somebody who may."""
    return _raw(routes, b"Authorization: Bearer " + credential.encode())


@st.composite
def _raw(draw: DrawFn, routes: list[Route], credential: bytes) -> Raw:
    if draw(st.integers(0, 14)) == 0:
        text = draw(st.sampled_from(GREETINGS) | st.binary(max_size=300))
    else:
        text = b"".join(
            draw(_request(routes, credential))
            for _ in range(draw(st.sampled_from([1] * 8 + [2, 3])))
        )
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 3]))):
        text = _bent(draw, text)
    cuts = draw(st.lists(st.integers(0, len(text)), max_size=3).map(sorted))
    if draw(st.integers(0, 7)) == 0:
        text = text[: draw(st.integers(0, len(text)))]  # broken off
    edges = [0, *(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = tuple(text[start:end] for start, end in pairwise(edges))
    return Raw(tuple(piece for piece in pieces if piece) or (b"\r\n",), text.startswith(b"HEAD "))


@st.composite
def _request(draw: DrawFn, routes: list[Route], credential: bytes) -> bytes:
    method, rule = draw(st.sampled_from(routes))
    line = method.encode(), PARAMETER.sub("nothing", rule).encode(), b"HTTP/1.1"
    oddly = draw(st.integers(0, 5))
    if oddly == 0:
        line = draw(st.sampled_from(METHODS)), line[1], line[2]
    elif oddly == 1:
        line = line[0], draw(st.sampled_from(TARGETS) | st.binary(max_size=30)), line[2]
    elif oddly == 2:
        line = line[0], line[1], draw(st.sampled_from(VERSIONS))
    lines = [b" ".join(line), b"Host: 127.0.0.1"]
    if draw(st.booleans()):
        lines.append(credential)
    lines += draw(st.lists(st.sampled_from(HEADER_LINES), max_size=2))
    framing = draw(st.integers(0, 3))
    if framing == 0:
        head, body = [b"Transfer-Encoding: chunked"], draw(st.sampled_from(CHUNKS))
    elif framing == 1:
        lie = draw(st.sampled_from([0, 0, 0, 1, -1, 1_000]))
        head, body = [b"Content-Length: %d" % (len(BODY) + lie)], BODY
    elif framing == 2:
        head, body = [], draw(st.binary(max_size=60))
    else:
        head, body = [], b""
    if draw(st.integers(0, 3)):
        head.append(b"Connection: close")
    end = draw(st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\n\r\n"]))
    return end.join([*lines, *head]) + end + end + body


def _bent(draw: DrawFn, text: bytes) -> bytes:
    """The text with a few bytes changed, lost or come in between."""
    at = draw(st.integers(0, len(text)))
    return text[:at] + draw(st.binary(max_size=4)) + text[at + draw(st.integers(0, 3)) :]
