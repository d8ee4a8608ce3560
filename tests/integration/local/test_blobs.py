"""FolderBlobStore: whole files or none, inside the folder, and clear errors."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from synapse.adapters.local.blobs import FolderBlobStore
from synapse.adapters.local.failures import StorageError
from synapse.domain.errors import Unavailable


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "blobs"


@pytest.fixture
def blobs(folder: Path) -> FolderBlobStore:
    return FolderBlobStore(folder)


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def test_whatever_the_key_the_file_lies_in_the_folder(
    blobs: FolderBlobStore, folder: Path
) -> None:
    for key in ("../../etc/passwd", "/etc/passwd", "..", "", "\x00", "a/../../b", "\ud800"):
        await blobs.put(key, b"data")

    assert len(files(folder.parent)) == len(files(folder)) == 7


async def test_a_reader_sees_the_old_bytes_or_the_new_ones(blobs: FolderBlobStore) -> None:
    versions = [bytes([n]) * 300_000 for n in range(2)]
    await blobs.put("key", versions[0])

    async def write() -> None:
        for n in range(20):
            await blobs.put("key", versions[n % 2])

    writing = asyncio.create_task(write())
    while not writing.done():
        assert await blobs.get("key") in versions
    await writing


async def test_a_put_that_fails_leaves_the_old_bytes_and_no_litter(
    blobs: FolderBlobStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await blobs.put("key", b"old")

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(Unavailable, match="disk is full"):
            await blobs.put("key", b"new")

    assert await blobs.get("key") == b"old"
    assert len(files(folder)) == 1


async def test_old_files_that_no_record_names_are_pruned(
    blobs: FolderBlobStore, folder: Path
) -> None:
    await blobs.put("old", b"old")
    [old] = files(folder)
    partial = old.with_name(".partial-left-by-a-crash")
    partial.write_bytes(b"")
    for path in (old, partial):
        os.utime(path, (1000, 1000))
    await blobs.put("new", b"new")

    assert await blobs.prune(older_than=2000) == 2

    assert await blobs.get("new") == b"new"
    with pytest.raises(KeyError):
        await blobs.get("old")


async def endless(begun: asyncio.Event) -> AsyncIterator[bytes]:
    yield b"x" * 3_000_000
    begun.set()
    await asyncio.Event().wait()


async def test_a_stream_that_is_cancelled_leaves_no_litter(
    blobs: FolderBlobStore, folder: Path
) -> None:
    begun = asyncio.Event()
    storing = asyncio.create_task(blobs.put_stream("key", endless(begun)))
    await begun.wait()
    assert len(files(folder)) == 1

    storing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await storing

    assert files(folder) == []


async def test_a_stream_onto_a_full_disk_is_unavailable_and_leaves_no_litter(
    blobs: FolderBlobStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"x" * 3_000_000

    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(Unavailable, match="disk is full"):
            await blobs.put_stream("key", chunks())

    assert files(folder) == []


@pytest.mark.parametrize("as_stream", [False, True])
async def test_a_full_disk_is_its_trouble_until_something_could_be_written(
    blobs: FolderBlobStore, folder: Path, monkeypatch: pytest.MonkeyPatch, as_stream: bool
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def chunks() -> AsyncIterator[bytes]:
        yield b"whole"

    async def put() -> None:
        await (blobs.put_stream("key", chunks()) if as_stream else blobs.put("key", b"whole"))

    await blobs.put("old", b"old")
    assert blobs.last_trouble() == ""
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(Unavailable):
            await put()
        assert blobs.last_trouble() == f"storage: {folder.name}: the disk is full: free some space"
        with pytest.raises(Unavailable):
            await blobs.try_again()
        assert await blobs.get("old") == b"old"  # That wrote nothing.
        assert blobs.last_trouble() != ""

    await blobs.try_again()
    assert blobs.last_trouble() == ""
    assert len(files(folder)) == 1

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", fail)
        with pytest.raises(Unavailable):
            await put()
    await put()
    assert blobs.last_trouble() == ""


async def test_what_a_dead_process_was_writing_is_dropped(
    blobs: FolderBlobStore, folder: Path
) -> None:
    await blobs.put("kept", b"kept")
    [kept] = files(folder)
    kept.with_name(".partial-left-by-a-crash").write_bytes(b"half")

    assert await blobs.drop_partials() == 1

    assert files(folder) == [kept]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StorageError, match="is a file"):
        FolderBlobStore(tmp_path / "file" / "blobs")
