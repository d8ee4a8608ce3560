"""Multipart forms, read part by part as they come in, so that a file is never whole in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser, parse_options_header

from synapse.domain.errors import InvalidRequest, MalformedForm

MAX_FIELD_BYTES = 10_000
MAX_BOUNDARY_CHARS = 200


class MissingField(InvalidRequest):
    """A field that is needed is not in the form."""

    code = "missing_required_parameter"


class UnknownField(InvalidRequest):
    """A field has no meaning in this form."""

    code = "unknown_parameter"


@dataclass(slots=True)
class FormPart:
    """A field of a form; `filename` says that it is a file. Read it before asking for the next."""

    name: str
    filename: str | None
    _form: Form

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Its content in pieces, as they come in."""
        while (data := await self._form.next_data()) is not None:
            yield data

    async def text(self) -> str:
        """Its content as text.

        Raises:
            InvalidRequest: it is too long for a field, or not UTF-8.
        """
        content = b""
        async for chunk in self.chunks():
            content += chunk
            if len(content) > MAX_FIELD_BYTES:
                raise InvalidRequest(
                    f"{self.name[:80]}: longer than {MAX_FIELD_BYTES} bytes", param=self.name[:80]
                )
        try:
            return content.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"{self.name[:80]}: not UTF-8 text", param=self.name[:80]
            ) from error


@dataclass(slots=True)
class _Headers:
    """The headers of the part that is being parsed."""

    name: bytes = b""
    value: bytes = b""
    lines: dict[bytes, bytes] = field(default_factory=dict)


class Form:
    """The parts of a form, one after the other: `async for part in form.parts()`, once."""

    def __init__(self, content_type: str, body: AsyncIterator[bytes]) -> None:
        """Read a form of that Content-Type from `body`.

        Raises:
            MalformedForm: the type is another one, or has no usable boundary.
        """
        self._body = body
        # What the parser has found: a part's beginning, its data, None for its end.
        self._found: deque[FormPart | bytes | None] = deque()
        self._headers = _Headers()
        self._is_over = False
        self._parser = MultipartParser(
            _boundary(content_type),
            {
                "on_part_begin": self._on_part_begin,
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    async def parts(self) -> AsyncGenerator[FormPart, None]:
        """The parts; what is not read of one is skipped.

        Raises:
            MalformedForm: the body is no such form, or ends before the form does.
        """
        while await self._more():
            part = self._found.popleft()
            if isinstance(part, FormPart):
                yield part

    async def next_data(self) -> bytes | None:
        """The next piece of the present part; None at its end."""
        if not await self._more():
            return None
        data = self._found.popleft()
        if isinstance(data, FormPart):
            raise RuntimeError("the parts of a form are read one after the other")
        return data

    async def _more(self) -> bool:
        while not self._found:
            chunk = await anext(self._body, None)
            if chunk is None:
                if not self._is_over:
                    raise MalformedForm("body: the form ends before its last boundary")
                return False
            try:
                self._parser.write(chunk)
            except MultipartParseError as error:
                raise MalformedForm(f"body: not a multipart form: {error}") from error
        return True

    def _on_part_begin(self) -> None:
        self._headers = _Headers()

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._headers.name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._headers.value += data[start:end]

    def _on_header_end(self) -> None:
        headers = self._headers
        headers.lines[headers.name.lower()] = headers.value
        headers.name = headers.value = b""

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._headers.lines.get(b"content-disposition"))
        if kind != b"form-data" or b"name" not in options:
            raise MalformedForm("body: a part of the form has no name")
        filename = options.get(b"filename")
        self._found.append(
            FormPart(
                options[b"name"].decode("utf-8", "replace"),
                None if filename is None else filename.decode("utf-8", "replace"),
                self,
            )
        )

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._found.append(data[start:end])

    def _on_part_end(self) -> None:
        self._found.append(None)

    def _on_end(self) -> None:
        self._is_over = True


def _boundary(content_type: str) -> bytes:
    kind, options = parse_options_header(content_type.encode("latin-1", "replace"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data":
        raise MalformedForm("Content-Type: must be multipart/form-data", param="Content-Type")
    if not 0 < len(boundary) <= MAX_BOUNDARY_CHARS:
        raise MalformedForm(
            f"Content-Type: needs a boundary of 1 to {MAX_BOUNDARY_CHARS} characters",
            param="Content-Type",
        )
    return boundary
