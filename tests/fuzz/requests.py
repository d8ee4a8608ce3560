"""Requests to a route of the API, by somebody: what a client library could still send."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from tests.fuzz.bodies import Route, of_route
from tests.fuzz.forms import forms
from tests.fuzz.generation import MARK
from tests.fuzz.nasty import ODD_TEXTS, as_json, mutated, texts
from tests.fuzz.stage import OWNER, STRANGER, Caller, Stage

PARAMETER = re.compile(r"<(\w+)>")
FORMS = {("POST", "/v1/files"): b"file", ("POST", "/v1/uploads/<upload_id>/parts"): b"data"}
CALLERS = {
    "owner": 6,
    "stranger": 5,
    "stranger with limits": 3,
    "operator": 2,
    "owner's key": 1,
    "stranger without scopes": 1,
    "nobody": 1,
}
"""Who asks how often."""

METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND")
CREDENTIALS = (
    *(
        "Bearer",
        "Bearer ",
        "Bearer  x",
        "Basic dTpw",
        "bearer sk-syn-",
        "Bearer sk-syn-" + "0" * 55,
    ),
    *("Bearer eyJhbGciOiJub25lIn0.e30.", "Bearer e30.e30.e30", "Bearer " + "." * 900, "\xff\xfe"),
    *(
        "Bearer " + "a" * 9_000,
        "Bearer a, Bearer b",
        "Bearer eyJhbGciOiJIUzI1NiIsImtpZCI6W119.e30.AA",
    ),
)
DAYS = (
    "2026-11-01",
    "2026-02-30",
    "9999-12-31",
    "0001-01-01",
    "2026-W01",
    "-1",
    "2026-11-01T00:00Z",
)
PARAMETERS: Mapping[str, tuple[str, ...]] = {
    "wait": ("0", "0.01", "-1", "nan", "inf", "1e999", "1_0", "٣"),
    "limit": ("1", "2", "1000", "0", "-1", "1e2", "99999999999999999999", "0x10", "\uff11"),
    "order": ("asc", "desc", "ASC"),
    "purpose": ("batch", "batch_output", "x"),
    "from": DAYS,
    "to": DAYS,
    "group_by": ("key", "model", "day", "x"),
    "format": ("json", "csv", "xml"),
    "tenant": (OWNER, STRANGER, "default", "../x"),
    "model": ("echo", "x"),
    "tier": ("gold", "silver", "bronze", "x"),
    "items": ("1", "2048", "0"),
    "prompt_tokens": ("1", "-1", "10000000000"),
    "output_tokens": ("1", "10000000000"),
    "deadline": ("1", "0.001", "nan", "inf"),
}
HEADERS: Mapping[str, tuple[str, ...]] = {
    "Idempotency-Key": ("a", "b", "c", "", "k" * 255, "k" * 256, "\xe9", "a b"),
    "Accept": ("text/csv", "text/event-stream", "application/xml;q=x", "*/*", ""),
    "Content-Encoding": ("gzip", "br", "identity", "deflate, gzip", "x" * 5_000),
    "Content-Type": (
        "text/plain",
        "application/json; charset=utf-16",
        "multipart/form-data",
        "\xff",
    ),
    "x-stainless-read-timeout": ("1", "0", "-1", "nan", "inf", "1e999", "x"),
    "x-stainless-timeout": ("1", "x"),
    "x-stainless-retry-count": ("0", "1", "-1", "x", "9" * 400),
    "Origin": ("https://a.invalid", "null", "\xff"),
    "Access-Control-Request-Method": ("POST", "x"),
    "X-Forwarded-For": ("127.0.0.1", "x, y"),
    "X-HTTP-Method-Override": ("DELETE",),
    "Cookie": ("a=b; " * 500,),
    "Range": ("bytes=0-1", "bytes=9-1", "x"),
    "If-None-Match": ("*", '"a"'),
    "x-request-id": ("mine", "\xff" * 10),
    "traceparent": ("00-" + "f" * 32 + "-" + "f" * 16 + "-01", "x"),
    "Cache-Control": ("no-store", "no-cache", "max-age=-1"),
    "Accept-Language": ("x" * 8_000,),
}


@dataclass(frozen=True)
class Sent:
    """A request, written out."""

    route: Route
    caller: Caller
    method: str
    target: str
    headers: dict[str, str]
    body: bytes | None

    def __str__(self) -> str:
        headers = {name: value for name, value in self.headers.items() if name != "Authorization"}
        return f"{self.method} {self.target} {headers} by {self.caller.name}: {self.body!r}"


def requests_to(route: Route, stage: Stage) -> SearchStrategy[Sent]:
    """All kinds of them, most of which get past the door."""
    return _requests(route, stage)


@st.composite
def _requests(draw: DrawFn, route: Route, stage: Stage) -> Sent:
    names = [name for name, times in CALLERS.items() for _ in range(times)]
    caller = stage.callers[draw(st.sampled_from(names))]
    method = route[0]
    if draw(st.integers(0, 29)) == 0:
        method = draw(st.sampled_from(METHODS))
    headers = dict(caller.headers)
    kind, body = draw(_body(route, stage))
    if body is not None:
        mark = stage.canaries.get(caller.tenant, caller.name).encode()
        body = body.replace(MARK.encode(), mark)
        headers["Content-Type"] = kind
    for name in draw(st.lists(st.sampled_from(sorted(HEADERS)), max_size=2)):
        headers[name] = draw(st.sampled_from(HEADERS[name]) | _header_text())
    if draw(st.integers(0, 39)) == 0:
        headers["Authorization"] = draw(st.sampled_from(CREDENTIALS) | _header_text())
        # Whoever that is, it is not the caller.
        caller = stage.callers["nobody"]
    target = draw(_path(route[1], stage)) + draw(_query())
    return Sent(route, caller, method, target, headers, body)


@st.composite
def _body(draw: DrawFn, route: Route, stage: Stage) -> tuple[str, bytes | None]:
    if route[0] in ("GET", "DELETE") and draw(st.integers(0, 9)):
        return "", None
    if route in FORMS and draw(st.integers(0, 9)):
        return draw(forms(FORMS[route]))
    if draw(st.integers(0, 19)) == 0:
        return "application/json", draw(st.binary(max_size=200) | st.just(b"{" * 70_000))
    files = st.sampled_from(_ids(stage, "file_id")) | texts
    parts = st.sampled_from(["part_1", *_ids(stage, "part_id")]) | texts
    return "application/json", as_json(draw(mutated(of_route(route, files, parts))))


def _ids(stage: Stage, parameter: str) -> list[str]:
    """Everybody's of that kind."""
    return [each for ids in stage.ids.values() for each in ids.get(parameter, [])] or ["nothing"]


@st.composite
def _path(draw: DrawFn, rule: str, stage: Stage) -> str:
    def filled(match: re.Match[str]) -> str:
        known = {"name": ["acmo", "nobody"], "model": ["echo"], "file": ["docs.css", "redoc.js"]}
        ids = known.get(match[1]) or _ids(stage, match[1])
        own = st.sampled_from([*ids, ids[0] + "x", ids[0][:-1]])
        short = st.sampled_from([each for each in ODD_TEXTS if len(each) < 1_000])
        text = draw(st.one_of(own, own, own, short, texts.filter(lambda each: len(each) < 1_000)))
        return quote(text.encode("utf-8", errors="surrogatepass"), safe="")

    path = PARAMETER.sub(filled, rule)
    return path + draw(st.sampled_from([""] * 20 + ["/", "//", "/..", "%2F", ";a=b", "%00"]))


@st.composite
def _query(draw: DrawFn) -> str:
    pairs = []
    for name in draw(st.lists(st.sampled_from(sorted(PARAMETERS)), max_size=3)):
        value = draw(st.sampled_from(PARAMETERS[name]) | texts)
        pairs.append(f"{name}={quote(value.encode('utf-8', errors='surrogatepass'))}"[:8_000])
    pairs += draw(st.sampled_from([[]] * 12 + [["&&="], ["a"], ["%zz=%"], ["a=b"] * 500]))
    return "?" + "&".join(pairs) if pairs else ""


def _header_text() -> SearchStrategy[str]:
    return st.text(
        st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=30
    )
