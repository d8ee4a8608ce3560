"""Multipart forms, most of them not as they should be."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from tests.fuzz.bodies import jsonl
from tests.fuzz.nasty import texts

BOUNDARIES = (b"b", b"-" * 60, b"x y", b"a" * 71, b"")
NAMES = (b"file", b"file", b"purpose", b"data", b"expires_after[seconds]", b"expires_after[anchor]")
EXTRA = (
    b"",
    b"Content-Type: application/jsonl\r\n",
    b"Content-Transfer-Encoding: base64\r\n",
    b"X-Long: " + b"a" * 20_000 + b"\r\n",
    b"Content-Disposition: form-data; name=twice\r\n",
    b"no colon here\r\n",
    b": nameless\r\n",
    b"A: b\r\n" * 300,
)
SHORT = {
    b"purpose": b"batch",
    b"expires_after[seconds]": b"3600",
    b"expires_after[anchor]": b"created_at",
}


@st.composite
def forms(draw: DrawFn, content_name: bytes) -> tuple[str, bytes]:
    """A content type and a body; `content_name` is the part that the route wants."""
    boundary = draw(st.sampled_from(BOUNDARIES[:1] * 8 + BOUNDARIES))
    fields = [(b"purpose", b"batch")] if content_name == b"file" else []
    fields.append((content_name, draw(jsonl())))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        name = draw(st.sampled_from(NAMES))
        value = SHORT.get(name, b"") if draw(st.booleans()) else draw(_text())
        fields.insert(draw(st.integers(0, len(fields))), (name, value))
    body = b"".join(_part(draw, boundary, name, content) for name, content in fields)
    body += draw(st.sampled_from([b"--%s--\r\n" % boundary] * 6 + [b"", b"--", b"--x--\r\n"]))
    body = draw(st.sampled_from([b""] * 9 + [b"preamble\r\n", b"\r\n" * 5_000])) + body
    body = body[: draw(st.sampled_from([len(body)] * 9 + [len(body) // 2]))]
    said = draw(st.sampled_from([boundary] * 9 + [b"other", b'"unclosed']))
    kind = draw(st.sampled_from(["form-data"] * 9 + ["mixed", "form-data; charset=utf-16"]))
    return f"multipart/{kind}; boundary={said.decode('latin-1')}", body


def _part(draw: DrawFn, boundary: bytes, name: bytes, content: bytes) -> bytes:
    filename = b""
    if name in (b"file", b"data"):
        odd = draw(st.sampled_from([b"in.jsonl"] * 5) | _text())
        filename = b'; filename="%s"' % odd.replace(b"\r", b"").replace(b"\n", b"")
    extra = draw(st.sampled_from(EXTRA[:1] * 12 + EXTRA))
    head = b'--%s\r\nContent-Disposition: form-data; name="%s"%s\r\n%s\r\n'
    return head % (boundary, name, filename, extra) + content + b"\r\n"


def _text() -> st.SearchStrategy[bytes]:
    return texts.map(lambda text: text.encode("utf-8", errors="surrogatepass"))
