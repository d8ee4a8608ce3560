"""FileStore: a tenant's files in the order of time, each there until it expires."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from synapse.adapters.aws.files import DynamoFileStore
from synapse.adapters.local.database import Database
from synapse.adapters.local.file_store import SqliteFileStore
from synapse.domain.file import FileId, Purpose, StoredFile
from synapse.ports import FileQuery, FileStore
from tests.aws import aws
from tests.factories import NOW
from tests.fake_files import MemoryFileStore
from tests.fakes import FakeClock


@asynccontextmanager
async def opened(kind: str, clock: FakeClock, folder: Path) -> AsyncIterator[FileStore]:
    if kind == "memory":
        yield MemoryFileStore(clock)
    elif kind == "sqlite":
        database = Database.open(folder / "jobs.db")
        yield SqliteFileStore(database, clock)
        await database.close()
    else:
        with aws() as cloud:
            yield DynamoFileStore(cloud.dynamodb, cloud.files_table, clock=clock)


@pytest.fixture(params=["memory", "sqlite", "dynamodb"])
async def files(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[FileStore]:
    store: AbstractAsyncContextManager[FileStore] = opened(request.param, clock, tmp_path)
    async with store as files:
        yield files


def a_file(number: int = 1, **changes: Any) -> StoredFile:
    fields: dict[str, Any] = {
        "id": FileId(f"file-{number:04d}"),
        "filename": "ünï 🦊.jsonl",
        "purpose": Purpose.BATCH,
        "size_bytes": 12_345_678_901,
        "created_at": NOW + number,
        "expires_at": NOW + 3600.5,
        "blob_key": f"files/{number}",
    }
    return StoredFile(**{**fields, **changes})


async def filled(store: FileStore, count: int, **changes: Any) -> list[StoredFile]:
    files = [a_file(number, **changes) for number in range(1, count + 1)]
    for file in files:
        assert await store.create(file)
    return files


async def test_a_file_comes_back_as_it_was_recorded(files: FileStore) -> None:
    file = a_file()

    assert await files.create(file)

    assert await files.get("default", file.id) == file


async def test_an_id_is_given_once(files: FileStore) -> None:
    first, second = a_file(), a_file(blob_key="files/other")
    assert await files.create(first)

    assert not await files.create(second)

    assert await files.get("default", first.id) == first


async def test_of_many_who_want_an_id_one_gets_it(files: FileStore) -> None:
    rivals = [a_file(blob_key=f"files/{n}") for n in range(8)]

    created = await asyncio.gather(*(files.create(file) for file in rivals))

    assert created.count(True) == 1
    assert await files.get("default", rivals[0].id) == rivals[created.index(True)]


@pytest.mark.parametrize("tenant", ["other", "", "default#", "files#default"])
async def test_another_tenants_file_is_not_there(files: FileStore, tenant: str) -> None:
    file = a_file()
    await files.create(file)

    assert await files.get(tenant, file.id) is None
    assert await files.delete(tenant, file.id) is None
    assert list(await files.page(tenant, FileQuery(10))) == []
    assert await files.get("default", file.id) == file


async def test_an_expired_file_is_not_there(files: FileStore, clock: FakeClock) -> None:
    file = a_file()
    await files.create(file)
    clock.now = file.expires_at

    assert await files.get("default", file.id) is None
    assert await files.delete("default", file.id) is None
    assert list(await files.page("default", FileQuery(10))) == []


async def test_a_deleted_file_is_gone_and_told_once(files: FileStore) -> None:
    first, second = await filled(files, 2)

    assert await files.delete("default", first.id) == first

    assert await files.get("default", first.id) is None
    assert await files.delete("default", first.id) is None
    assert list(await files.page("default", FileQuery(10))) == [second]


@pytest.mark.parametrize("newest_first", [True, False])
async def test_pages_follow_each_other_without_gap_or_overlap(
    files: FileStore, newest_first: bool
) -> None:
    expected = sorted(await filled(files, 7), key=lambda file: file.id, reverse=newest_first)
    seen: list[StoredFile] = []

    while True:
        after = seen[-1].id if seen else None
        page = await files.page("default", FileQuery(3, after, newest_first))
        if not page:
            break
        assert len(page) <= 3
        seen += page

    assert seen == expected


async def test_a_page_may_follow_a_file_that_is_gone(files: FileStore) -> None:
    first, second, third = await filled(files, 3)
    await files.delete("default", second.id)

    assert list(await files.page("default", FileQuery(10, second.id))) == [first]
    assert list(await files.page("default", FileQuery(10, second.id, False))) == [third]


async def test_a_page_is_filled_with_the_purpose_that_was_asked_for(files: FileStore) -> None:
    wanted = [
        file
        for number in range(1, 21)
        for file in [
            a_file(number, purpose=Purpose.BATCH_OUTPUT if number % 4 == 0 else Purpose.BATCH)
        ]
        if await files.create(file) and number % 4 == 0
    ]

    page = await files.page("default", FileQuery(3, None, False, Purpose.BATCH_OUTPUT))

    assert list(page) == wanted[:3]


@pytest.mark.parametrize(
    "file_id", ["file-9999", "file-0001 ", "' OR 1=1 --", "x" * 100, "ü" * 100]
)
async def test_an_unknown_id_is_nobodys(files: FileStore, file_id: str) -> None:
    await files.create(a_file())

    assert await files.get("default", FileId(file_id)) is None
    assert await files.delete("default", FileId(file_id)) is None
