"""Files and uploads when a store fails in between, or two do the same at once."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from synapse.application.files import Files
from synapse.application.uploads import Uploads
from synapse.domain.errors import FileUnknown, Unavailable, UploadNotPending
from synapse.domain.file import FileId, NewFile, Purpose
from synapse.domain.upload import Upload, UploadState
from tests.fake_files import MemoryFileStore, MemoryUploadStore
from tests.fakes import FakeClock, MemoryBlobStore
from tests.faults import failing_after, failing_before

NEW = NewFile("in.jsonl", Purpose.BATCH)


@dataclass
class Parts:
    """Files and uploads over fakes."""

    clock: FakeClock = field(default_factory=FakeClock)
    blobs: MemoryBlobStore = field(default_factory=MemoryBlobStore)
    file_store: Any = None
    upload_store: Any = field(default_factory=MemoryUploadStore)

    def __post_init__(self) -> None:
        numbers = itertools.count(1)
        self.file_store = self.file_store or MemoryFileStore(self.clock)

        def new_id() -> str:
            return f"{next(numbers):08d}"

        self.files = Files(self.file_store, self.blobs, self.clock, new_id)
        self.uploads = Uploads(self.upload_store, self.files, self.blobs, self.clock, new_id)

    async def begun(self, size_bytes: int = 4) -> Upload:
        return (await self.uploads.begin(NEW, "text/jsonl", size_bytes)).upload


async def sent(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


async def described() -> NewFile:
    return NEW


NO = Unavailable("the disk is full")


@pytest.mark.parametrize("failing", [failing_before, failing_after])
async def test_a_file_that_cannot_be_recorded_leaves_nothing_behind(failing: Any) -> None:
    store = MemoryFileStore()
    parts = Parts(file_store=failing(store, create=[NO]))

    with pytest.raises(Unavailable, match="disk is full"):
        await parts.files.receive(sent(b"1"), described)

    assert (parts.blobs.blobs, store.files) == ({}, {})


async def test_a_file_that_may_have_been_recorded_keeps_its_bytes() -> None:
    store = MemoryFileStore()
    parts = Parts(file_store=failing_before(failing_after(store, create=[NO]), delete=[NO]))

    with pytest.raises(Unavailable):
        await parts.files.receive(sent(b"1"), described)

    [file] = store.files.values()
    assert parts.blobs.blobs == {file.blob_key: b"1"}


async def test_a_caller_that_leaves_while_the_form_ends_leaves_nothing_behind() -> None:
    parts, waiting = Parts(), asyncio.Event()

    async def never() -> NewFile:
        waiting.set()
        await asyncio.Event().wait()
        return NEW

    receiving = asyncio.create_task(parts.files.receive(sent(b"1"), never))
    await waiting.wait()
    assert len(parts.blobs.blobs) == 1
    receiving.cancel()

    with pytest.raises(asyncio.CancelledError):
        await receiving
    assert parts.blobs.blobs == {}


async def test_a_file_of_ours_is_written_once() -> None:
    parts = Parts()
    first = await parts.files.write(FileId("file-1"), NEW, sent(b"first"))

    again = await parts.files.write(FileId("file-1"), NEW, sent(b"again"))

    assert again == first
    assert list(parts.blobs.blobs.values()) == [b"first"]


async def test_of_two_who_write_a_file_at_once_one_does_and_both_get_it() -> None:
    parts = Parts()

    one, other = await asyncio.gather(
        *(parts.files.write(FileId("file-1"), NEW, sent(b"a", b"b")) for _ in range(2))
    )

    assert one == other
    assert list(parts.blobs.blobs) == [one.blob_key]


@pytest.mark.parametrize("failing", [failing_before, failing_after])
async def test_who_fails_to_write_a_file_of_ours_takes_it_from_nobody(failing: Any) -> None:
    store = MemoryFileStore()
    parts = Parts(file_store=failing(store, create=[None, NO]))

    async def also() -> AsyncIterator[bytes]:
        await parts.files.write(FileId("file-1"), NEW, sent(b"first"))
        yield b"second"

    with pytest.raises(Unavailable):
        await parts.files.write(FileId("file-1"), NEW, also())

    assert parts.blobs.blobs[store.files[FileId("file-1")].blob_key] == b"first"


async def test_a_file_that_is_deleted_while_it_is_read_is_not_found() -> None:
    parts = Parts()
    file = await parts.files.receive(sent(b"1"), described)
    await parts.files.delete(file.id)

    with pytest.raises(FileUnknown):
        await anext(parts.files.content(file))


async def test_a_part_that_cannot_be_recorded_leaves_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = Parts()
    upload = await parts.begun()

    async def refuse(*arguments: object) -> None:
        raise Unavailable("not now")

    monkeypatch.setattr(parts.upload_store, "add_part", refuse)
    with pytest.raises(Unavailable):
        await parts.uploads.add_part(upload.id, sent(b"1234"))

    assert parts.blobs.blobs == {}


async def test_what_broke_off_between_the_file_and_the_uploads_end_is_completed_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = Parts()
    upload = await parts.begun()
    part = await parts.uploads.add_part(upload.id, sent(b"1234"))

    async def refuse(*arguments: object) -> None:
        raise Unavailable("not now")

    with monkeypatch.context() as patch:
        patch.setattr(parts.upload_store, "finish", refuse)
        with pytest.raises(Unavailable):
            await parts.uploads.complete(upload.id, [part.id])
    view = await parts.uploads.complete(upload.id, [part.id])

    assert (view.state, view.file) == (
        UploadState.COMPLETED,
        parts.file_store.files[upload.file_id],
    )
    assert list(parts.blobs.blobs.values()) == [b"1234"]


async def test_an_upload_that_is_cancelled_while_it_is_completed_becomes_no_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts = Parts()
    upload = await parts.begun()
    part = await parts.uploads.add_part(upload.id, sent(b"1234"))
    finish = parts.upload_store.finish

    async def overtaken(upload: Upload, state: UploadState) -> Upload | None:
        parts.upload_store.uploads[upload.id] = replace(upload, state=UploadState.CANCELLED)
        ended: Upload | None = await finish(upload, state)
        return ended

    monkeypatch.setattr(parts.upload_store, "finish", overtaken)
    with pytest.raises(UploadNotPending, match="cancelled"):
        await parts.uploads.complete(upload.id, [part.id])

    assert parts.file_store.files == {}
