"""BlobStore: the bytes that were put are the bytes that come back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

import pytest

from synapse.ports import BlobStore

LARGEST_INLINE_BYTES = 128 * 1024

KEYS = [
    "jobs/1/input",
    "a",
    "with space",
    "ünï/çødé/日本/🦊",
    "../../etc/passwd",
    "/absolute",
    "a//b",
    "per%2Fcent",
    "x" * 900,
]


async def test_it_says_which_texts_are_better_kept_in_a_record(blobs: BlobStore) -> None:
    assert 0 < blobs.inline_bytes <= LARGEST_INLINE_BYTES


@pytest.mark.parametrize("data", [b"", b"\x00\xff\r\n", b"abc" * 500_000], ids=len)
async def test_bytes_come_back_as_they_were_put(blobs: BlobStore, data: bytes) -> None:
    await blobs.put("jobs/1/input", data)

    assert await blobs.get("jobs/1/input") == data


async def test_any_key_is_a_key_of_its_own(blobs: BlobStore) -> None:
    for key in KEYS:
        await blobs.put(key, key.encode())

    assert [await blobs.get(key) for key in KEYS] == [key.encode() for key in KEYS]


async def test_a_key_may_lie_below_another(blobs: BlobStore) -> None:
    await blobs.put("jobs", b"above")
    await blobs.put("jobs/1", b"below")

    assert (await blobs.get("jobs"), await blobs.get("jobs/1")) == (b"above", b"below")


async def test_a_second_put_replaces_the_first(blobs: BlobStore) -> None:
    await blobs.put("key", b"a longer first text")
    await blobs.put("key", b"second")

    assert await blobs.get("key") == b"second"


async def test_what_is_not_there_is_a_key_error(blobs: BlobStore) -> None:
    with pytest.raises(KeyError, match="jobs/none"):
        await blobs.get("jobs/none")


async def test_a_deleted_key_is_gone(blobs: BlobStore) -> None:
    await blobs.put("key", b"data")
    await blobs.put("kept", b"kept")

    await blobs.delete("key")

    with pytest.raises(KeyError):
        await blobs.get("key")
    assert await blobs.get("kept") == b"kept"


async def test_deleting_what_is_not_there_is_no_error(blobs: BlobStore) -> None:
    await blobs.delete("jobs/none")


async def pieces(*chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(0)
        yield chunk


async def read(blobs: BlobStore, key: str, start: int = 0) -> bytes:
    return b"".join([piece async for piece in blobs.stream(key, start)])


STREAMS = {
    "nothing": [],
    "empty chunks": [b"", b""],
    "one": [b"one"],
    "lines": [b"a\n", b"", b"b\n", b"c"],
    "large": [bytes([n]) * 700_001 for n in range(25)],
    "exactly one part": [b"x" * 1024 * 1024] * 8,
}


@pytest.mark.parametrize("chunks", STREAMS.values(), ids=STREAMS)
async def test_a_stream_is_stored_as_the_bytes_it_gave(
    blobs: BlobStore, chunks: list[bytes]
) -> None:
    data = b"".join(chunks)

    assert await blobs.put_stream("files/1", pieces(*chunks)) == len(data)

    assert await blobs.get("files/1") == data
    assert await read(blobs, "files/1") == data


@pytest.mark.parametrize("start", [1, 2_999_999, 8 * 1024 * 1024, 9_999_999, 10_000_000, 10**9])
async def test_reading_may_start_anywhere(blobs: BlobStore, start: int) -> None:
    data = bytes(range(250)) * 40_000
    await blobs.put("key", data)

    assert await read(blobs, "key", start) == data[start:]


@pytest.mark.parametrize("size", [10, 17_000_000], ids=["small", "large"])
async def test_a_stream_that_breaks_off_changes_nothing(blobs: BlobStore, size: int) -> None:
    async def breaking() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * (size // 10)
        raise ConnectionResetError("the client has gone")

    await blobs.put("kept", b"as it was")

    for key in ("kept", "new"):
        with pytest.raises(ConnectionResetError, match="the client has gone"):
            await blobs.put_stream(key, breaking())

    assert await blobs.get("kept") == b"as it was"
    with pytest.raises(KeyError):
        await blobs.get("new")


async def test_a_cancelled_stream_changes_nothing(blobs: BlobStore) -> None:
    begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 9_000_000
        begun.set()
        await asyncio.Event().wait()

    storing = asyncio.create_task(blobs.put_stream("key", endless()))
    await begun.wait()
    with pytest.raises(KeyError):
        await blobs.get("key")
    storing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await storing
    with pytest.raises(KeyError):
        await blobs.get("key")


async def test_a_stream_replaces_what_was_there(blobs: BlobStore) -> None:
    await blobs.put("key", b"a longer first text")
    await blobs.put_stream("key", pieces(b"sec", b"ond"))

    assert await blobs.get("key") == b"second"


async def test_streaming_what_is_not_there_is_a_key_error(blobs: BlobStore) -> None:
    with pytest.raises(KeyError, match="files/none"):
        await read(blobs, "files/none")


async def test_a_reader_may_stop_early(blobs: BlobStore) -> None:
    await blobs.put("key", b"abc" * 1_000_000)

    async with aclosing(blobs.stream("key")) as stream:
        first = await anext(stream)

    assert first
    assert (b"abc" * 1_000_000).startswith(first)
