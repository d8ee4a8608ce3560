"""BlobStore: the bytes that were put are the bytes that come back."""

from __future__ import annotations

import pytest

from synapse.ports import BlobStore

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
