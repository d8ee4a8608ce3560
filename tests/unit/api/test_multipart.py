"""Forms: the same parts however the body is cut, and a clear refusal of what is no form."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synapse.api.multipart import MAX_FIELD_BYTES, Form
from synapse.domain.errors import InvalidRequest, MalformedForm
from tests.unit.api.forms import BOUNDARY, FORM_TYPE, Field, chunked, form

Read = list[tuple[str, str | None, bytes]]


async def sent(chunks: Sequence[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def read(chunks: Sequence[bytes], content_type: str = FORM_TYPE) -> Read:
    return [
        (part.name, part.filename, b"".join([chunk async for chunk in part.chunks()]))
        async for part in Form(content_type, sent(chunks)).parts()
    ]


names = st.text(st.characters(exclude_characters='"\\\r\n%', codec="utf-8"), min_size=1)
contents = st.binary() | st.sampled_from(
    [f"--{BOUNDARY}".encode(), f"\r\n--{BOUNDARY}x"[:-3].encode(), b"\r\n", b"--", b"\r\n--\r\n"]
)
fields = st.lists(st.tuples(names, st.none() | names, contents), max_size=5)


@settings(deadline=None)
@given(fields, st.integers(1, 200))
async def test_the_parts_do_not_depend_on_how_the_body_is_cut(
    fields: list[Field], size: int
) -> None:
    fields = [field for field in fields if f"\r\n--{BOUNDARY}".encode() not in field[2]]

    assert await read(chunked(form(*fields), size)) == fields


async def test_a_part_that_is_not_read_is_skipped() -> None:
    body = form(("a", None, b"x" * 1000), ("b", None, b"y"))

    parts = [part.name async for part in Form(FORM_TYPE, sent(chunked(body, 7))).parts()]

    assert parts == ["a", "b"]


async def test_what_follows_the_last_boundary_is_ignored() -> None:
    assert await read([form(("a", None, b"1")), b"the epilogue"]) == [("a", None, b"1")]


@pytest.mark.parametrize("cut", [1, 30, 75, 90, 95])
async def test_a_form_that_breaks_off_is_refused(cut: int) -> None:
    body = form(("a", None, b"1" * 20))

    with pytest.raises(MalformedForm, match="ends before"):
        await read([body[:cut]])


@pytest.mark.parametrize(
    "body",
    [
        b"no form at all",
        b'{"file": 1}',
        b"--another\r\n\r\n1\r\n--another--\r\n",
        b"--%s\r\nno colon\r\n\r\n1\r\n" % BOUNDARY.encode(),
    ],
)
async def test_what_is_no_form_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedForm, match="body: not a multipart form"):
        await read([body])


@pytest.mark.parametrize(
    "header",
    [
        b"Content-Type: text/plain",
        b"Content-Disposition: form-data",
        b'Content-Disposition: attachment; name="a"',
    ],
)
async def test_a_part_without_a_name_is_refused(header: bytes) -> None:
    with pytest.raises(MalformedForm, match="has no name"):
        await read([b"--%s\r\n%s\r\n\r\n1\r\n--%s--" % (BOUNDARY.encode(), header, b"x")])


async def test_a_part_with_endless_headers_is_refused() -> None:
    header = b"X: y\r\n" * 1000

    with pytest.raises(MalformedForm):
        await read([b"--%s\r\n%s" % (BOUNDARY.encode(), header)])


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "application/json",
        "multipart/mixed; boundary=a",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 201,
    ],
)
async def test_another_content_type_is_refused(content_type: str) -> None:
    with pytest.raises(MalformedForm) as refused:
        Form(content_type, sent([]))

    assert refused.value.param == "Content-Type"


@pytest.mark.parametrize("content", [b"x" * (MAX_FIELD_BYTES + 1), b"\xff"], ids=["long", "binary"])
async def test_a_field_that_is_no_short_text_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidRequest) as refused:
        async for part in Form(FORM_TYPE, sent([form(("purpose", None, content))])).parts():
            await part.text()

    assert refused.value.param == "purpose"


@settings(deadline=None)
@given(st.data())
async def test_a_damaged_form_is_read_or_refused_and_nothing_else(data: st.DataObject) -> None:
    body = bytearray(form(("purpose", None, b"batch"), ("file", "in.jsonl", b"{}\r\n--\r\n")))
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(body) - 1))
        body[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    kind = data.draw(st.just(FORM_TYPE) | st.text(max_size=40).map("multipart/form-data; ".__add__))

    with suppress(MalformedForm):
        parts = await read(chunked(bytes(body), data.draw(st.integers(1, 50))), kind)
        assert all(isinstance(content, bytes) for _, _, content in parts)
