"""What a batch writes: output and error lines, in parts, which become its two files."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from synapse.domain.errors import Unavailable
from synapse.domain.file_batch import FileBatch
from synapse.ports import BlobStore

PART_BYTES = 4 * 1024 * 1024
MAX_SMALL_PARTS = 64
"""Of each kind; so many become one. A record names no more parts than these and those of
`PART_BYTES`, however few lines each step of a batch has written."""

OK = 200


def part_key(batch: FileBatch, part: str) -> str:
    """Where a part is kept."""
    return f"batches/{batch.id}/{part}"


@dataclass(slots=True)
class _Kind:
    """Lines of one kind: the parts written of them, and what is not written yet."""

    names: list[str] = field(default_factory=list)
    lines: list[bytes] = field(default_factory=list)
    size_bytes: int = 0


@dataclass(slots=True)
class Parts:
    """The parts of one step, written as they fill.

    Each has a name that nobody else gives, and that tells its size: two steps at once never write
    to the same part, and only those that the record names count.
    """

    batch: FileBatch
    blobs: BlobStore
    new_name: Callable[[], str]
    completed: int = 0
    failed: int = 0
    _outputs: _Kind = field(default_factory=_Kind)
    _errors: _Kind = field(default_factory=_Kind)

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of the parts with answers."""
        return tuple(self._outputs.names)

    @property
    def errors(self) -> tuple[str, ...]:
        """The names of the parts with errors."""
        return tuple(self._errors.names)

    async def answered(self, line: int, custom_id: str, body: Mapping[str, Any]) -> None:
        """Write a line that was answered."""
        self.completed += 1
        await self._add(self._outputs, line, custom_id, (OK, body), None)

    async def refused(
        self, line: int, custom_id: str | None, refusal: tuple[int, Mapping[str, Any]]
    ) -> None:
        """Write a line that was tried and refused, with the status and body of that."""
        self.failed += 1
        await self._add(self._errors, line, custom_id, refusal, None)

    async def not_run(self, line: int, custom_id: str | None, code: str, message: str) -> None:
        """Write a line that never was a request, or did not get its turn."""
        self.failed += 1
        error = {"code": code, "message": message, "line": line}
        await self._add(self._errors, line, custom_id, None, error)

    async def flush(self) -> None:
        """Write what is left."""
        await self._write(self._outputs)
        await self._write(self._errors)

    async def _add(
        self,
        kind: _Kind,
        line: int,
        custom_id: str | None,
        response: tuple[int, Mapping[str, Any]] | None,
        error: Mapping[str, Any] | None,
    ) -> None:
        value = {
            "id": f"batch_req_{self.batch.id.removeprefix('batch_')}{line:06d}",
            "custom_id": custom_id,
            "response": None,
            "error": error,
        }
        if response is not None:
            status, body = response
            request_id = self.batch.job_id(line)
            value["response"] = {"status_code": status, "request_id": request_id, "body": body}
        # In ASCII: many readers end a line at U+2028, U+2029 or U+0085 as well, and half a
        # surrogate pair, which JSON text may hold, is nothing that UTF-8 can write.
        text = json.dumps(value, separators=(",", ":"))
        kind.lines.append(text.encode("ascii") + b"\n")
        kind.size_bytes += len(kind.lines[-1])
        if kind.size_bytes >= PART_BYTES:
            await self._write(kind)

    async def _write(self, kind: _Kind) -> None:
        if kind.lines:
            data = b"".join(kind.lines)
            kind.names.append(await _put(self.batch, self.blobs, self.new_name, data))
        kind.lines, kind.size_bytes = [], 0


async def joined(
    batch: FileBatch, blobs: BlobStore, parts: Sequence[str]
) -> AsyncGenerator[bytes, None]:
    """The bytes of parts, one part in memory at a time.

    Raises:
        Unavailable: one is gone, most likely because somebody else has ended the batch.
    """
    for part in parts:
        yield await _read(batch, blobs, part)


async def compacted(batch: FileBatch, blobs: BlobStore, new_name: Callable[[], str]) -> FileBatch:
    """The batch with its small parts written together as one, once there are many of a kind.

    The parts that it no longer names are left: they are those of the record until this one is
    saved, and only then to be deleted.

    Raises:
        Unavailable: a part is gone, most likely because somebody else has moved the batch on.
    """
    outputs = await _compacted(batch, blobs, new_name, batch.output_parts)
    errors = await _compacted(batch, blobs, new_name, batch.error_parts)
    return replace(batch, output_parts=outputs, error_parts=errors)


async def _compacted(
    batch: FileBatch, blobs: BlobStore, new_name: Callable[[], str], parts: tuple[str, ...]
) -> tuple[str, ...]:
    small = [part for part in parts if _size_of(part) < PART_BYTES]
    if len(small) < MAX_SMALL_PARTS:
        return parts
    together, size = [], 0
    for part in small:
        if size >= PART_BYTES:
            break
        together.append(part)
        size += _size_of(part)
    data = b"".join(await asyncio.gather(*(_read(batch, blobs, part) for part in together)))
    left = tuple(part for part in parts if part not in together)
    return (await _put(batch, blobs, new_name, data), *left)


async def _put(batch: FileBatch, blobs: BlobStore, new_name: Callable[[], str], data: bytes) -> str:
    """Write a part; its name, which tells its size."""
    name = f"{new_name()}-{len(data)}"
    await blobs.put(part_key(batch, name), data)
    return name


def _size_of(part: str) -> int:
    """The size in bytes that a part's name tells; parts of earlier versions count as full."""
    size = part.partition("-")[2]
    return int(size) if size else PART_BYTES


async def _read(batch: FileBatch, blobs: BlobStore, part: str) -> bytes:
    try:
        return await blobs.get(part_key(batch, part))
    except KeyError as error:
        raise Unavailable("a part of the batch's output is gone") from error
