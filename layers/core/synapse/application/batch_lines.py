"""Reading a batch's file: line by line from any place, never whole, and what a line must hold."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NoReturn

from synapse.domain.file_batch import (
    MAX_INPUT_BYTES,
    MAX_LINES,
    START,
    Cursor,
    LineFault,
    OpenLine,
)
from synapse.domain.json_text import lone_surrogate_at

MAX_LINE_BYTES = 6 * 1024 * 1024
"""As much as the synchronous routes take in a body."""

MAX_CUSTOM_ID_CHARS = 512
MAX_FAULTS = 100
MAX_MODELS = 16
MAX_MODEL_CHARS = 256
"""So many of the models that lines name are kept, and none of a longer name."""

SKIP_BYTES = 256 * 1024
"""A gap up to this is read over; beyond it the file is opened anew."""

LINES_AT_A_TIME = 16
"""So many are looked at before others get the event loop: about a millisecond."""

BOM = b"\xef\xbb\xbf"

Open = Callable[[int], AsyncGenerator[bytes, None]]
"""Opens the file at an offset."""


@dataclass(frozen=True, slots=True)
class RawLine:
    """A line that is not blank, and what comes after it; no text if it was too long to keep."""

    place: OpenLine
    next: Cursor
    text: bytes | None


@dataclass(frozen=True, slots=True)
class Envelope:
    """A line as it must be around its body."""

    custom_id: str
    body: dict[str, Any]


class BadLine(Exception):
    """A line that cannot be run; `custom_id` if it could be read."""

    def __init__(
        self, code: str, message: str, param: str | None = None, custom_id: str | None = None
    ) -> None:
        super().__init__(message)
        self.code, self.message, self.param, self.custom_id = code, message, param, custom_id


class WrongEndpoint(BadLine):
    """A line for another route than its batch: the file was made for something else."""


async def read_lines(
    chunks: AsyncIterator[bytes], start: Cursor = START, max_line_bytes: int = MAX_LINE_BYTES
) -> AsyncGenerator[RawLine, None]:
    """The lines of `chunks`, which begin at `start`; blank ones are counted but not given."""
    number, offset = start
    pieces: list[bytes] = []
    size = 0
    async for chunk in chunks:
        begin = 0
        while begin < len(chunk):
            newline = chunk.find(b"\n", begin)
            end = len(chunk) if newline < 0 else newline + 1
            size += end - begin
            pieces.append(chunk[begin:end])
            if size > max_line_bytes:
                pieces.clear()
            begin = end
            if newline >= 0:
                line = _line(number, offset, size, pieces, max_line_bytes)
                if line is not None:
                    yield line
                number, offset, size, pieces = number + 1, offset + size, 0, []
    if size:
        line = _line(number, offset, size, pieces, max_line_bytes)
        if line is not None:
            yield line


def _line(
    number: int, offset: int, size: int, pieces: list[bytes], max_line_bytes: int
) -> RawLine | None:
    place, following = OpenLine(number, offset), Cursor(number + 1, offset + size)
    if size > max_line_bytes:
        return RawLine(place, following, None)
    text = b"".join(pieces).strip()
    if number == 1:
        text = text.removeprefix(BOM).strip()
    return RawLine(place, following, text) if text else None


async def read_at(open_file: Open, wanted: Sequence[OpenLine]) -> AsyncGenerator[RawLine, None]:
    """The `wanted` lines, which are in the order of the file.

    Raises:
        KeyError: the file is gone, or no longer the one that it was.
    """
    index = 0
    while index < len(wanted):
        first = wanted[index]
        async with aclosing(open_file(first.offset)) as chunks:
            async for line in read_lines(chunks, Cursor(*first)):
                if line.place == wanted[index]:
                    index += 1
                    yield line
                if index == len(wanted) or wanted[index].offset > line.next.offset + SKIP_BYTES:
                    break
        if index < len(wanted) and wanted[index] == first:
            raise KeyError(f"line {first.number} of the file")


def envelope_of(line: RawLine, endpoint: str) -> Envelope:
    """What is in a line.

    Raises:
        WrongEndpoint: it is for another route.
        BadLine: it is no JSON object, or lacks something, or is too long.
    """
    value = _object(line)
    custom_id = value.get("custom_id")
    if not isinstance(custom_id, str) or not 0 < len(custom_id) <= MAX_CUSTOM_ID_CHARS:
        reason = f"custom_id: a text of 1 to {MAX_CUSTOM_ID_CHARS} characters is required"
        raise BadLine(_code(value, "custom_id"), reason, "custom_id")
    url = value.get("url")
    if url != endpoint:
        reason = f"url: must be {endpoint}, the endpoint of the batch"
        kind = WrongEndpoint if isinstance(url, str) else BadLine
        raise kind(_code(value, "url"), reason, "url", custom_id)
    if value.get("method") != "POST":
        raise BadLine(_code(value, "method"), "method: must be POST", "method", custom_id)
    body = value.get("body")
    if not isinstance(body, dict):
        raise BadLine(_code(value, "body"), "body: must be a JSON object", "body", custom_id)
    return Envelope(custom_id, body)


def _object(line: RawLine) -> dict[str, Any]:
    if line.text is None:
        raise BadLine("line_too_large", f"a line may have at most {MAX_LINE_BYTES} bytes")
    try:
        text = line.text.decode()
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise BadLine("invalid_json_line", "the line is not valid JSON") from error
    if not isinstance(value, dict):
        raise BadLine("invalid_json_line", "the line is not a JSON object")
    if lone_surrogate_at(text, value) is not None:
        raise BadLine("invalid_json_line", "the line holds half of a surrogate pair")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _code(value: dict[str, Any], param: str) -> str:
    return f"invalid_{param}" if param in value else "missing_required_parameter"


@dataclass(slots=True)
class Findings:
    """What a look through the whole file has shown.

    `models` are the first that lines name, whether they are served or not. `faults` are those of
    the file, which fail the batch; a line's own fault is met again when its turn comes, and is that
    line's error.
    """

    total: int = 0
    size_bytes: int = 0
    models: list[str] = field(default_factory=list)
    faults: list[LineFault] = field(default_factory=list)


@dataclass(slots=True)
class _Look:
    """A look under way."""

    endpoint: str
    findings: Findings = field(default_factory=Findings)
    seen: dict[bytes, int] = field(default_factory=dict)
    bad: list[LineFault] = field(default_factory=list)
    usable: int = 0

    def at(self, line: RawLine) -> None:
        """Take a line into account."""
        self.findings.total += 1
        number = line.place.number
        try:
            envelope = envelope_of(line, self.endpoint)
        except WrongEndpoint as error:
            self._fault(LineFault("mismatched_url", error.message, error.param, number))
        except BadLine as error:
            self.bad.append(LineFault(error.code, error.message, error.param, number))
            del self.bad[MAX_FAULTS:]
        else:
            self.usable += 1
            self._unique(envelope.custom_id, number)
            self._name(envelope.body.get("model"))

    def _unique(self, custom_id: str, number: int) -> None:
        digest = blake2b(custom_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        first = self.seen.setdefault(digest, number)
        if first != number:
            reason = f"custom_id: the same as in line {first}; each must be unique"
            self._fault(LineFault("duplicate_custom_id", reason, "custom_id", number))

    def _name(self, model: object) -> None:
        models = self.findings.models
        if not isinstance(model, str) or len(model) > MAX_MODEL_CHARS or model in models:
            return
        if len(models) < MAX_MODELS:
            models.append(model)

    def _fault(self, fault: LineFault) -> None:
        if len(self.findings.faults) < MAX_FAULTS:
            self.findings.faults.append(fault)


async def look_through(
    chunks: AsyncIterator[bytes],
    endpoint: str,
    *,
    max_lines: int = MAX_LINES,
    max_bytes: int = MAX_INPUT_BYTES,
) -> Findings:
    """Look through a whole file, of which a line at a time is in memory."""
    look = _Look(endpoint)
    findings = look.findings

    async def counted() -> AsyncIterator[bytes]:
        async for chunk in chunks:
            findings.size_bytes += len(chunk)
            yield chunk

    async with aclosing(read_lines(counted())) as lines:
        async for line in lines:
            look.at(line)
            if findings.total % LINES_AT_A_TIME == 0:
                await asyncio.sleep(0)
            if findings.total > max_lines:
                reason = f"the file has more than {max_lines} requests"
                findings.faults = [LineFault("too_many_requests", reason, line=line.place.number)]
                return findings
            if findings.size_bytes > max_bytes:
                reason = f"the file has more than {max_bytes} bytes"
                findings.faults = [LineFault("file_too_large", reason)]
                return findings
    if findings.total == 0:
        findings.faults = [LineFault("empty_file", "the file has no request in it")]
    elif not look.usable and not findings.faults:
        findings.faults = look.bad
    return findings
