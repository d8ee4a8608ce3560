"""UploadStore: an upload ends once, and its parts are all known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from synapse.adapters.aws.files import DynamoUploadStore
from synapse.adapters.local.database import Database
from synapse.adapters.local.file_store import SqliteUploadStore
from synapse.domain.file import NewFile, Purpose
from synapse.domain.upload import PartId, Upload, UploadId, UploadPart, UploadState
from synapse.ports import UploadStore
from tests.aws import aws
from tests.factories import NOW
from tests.fake_files import MemoryUploadStore


@pytest.fixture(params=["memory", "sqlite", "dynamodb"])
async def uploads(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[UploadStore]:
    if request.param == "memory":
        yield MemoryUploadStore()
    elif request.param == "sqlite":
        database = Database.open(tmp_path / "jobs.db")
        yield SqliteUploadStore(database)
        await database.close()
    else:
        with aws() as cloud:
            yield DynamoUploadStore(cloud.dynamodb, cloud.files_table)


UPLOAD = Upload(
    id=UploadId("upload_1"),
    file=NewFile("a.jsonl", Purpose.BATCH, 7200),
    mime_type="text/jsonl",
    size_bytes=30,
    created_at=NOW,
    expires_at=NOW + 3600,
)


def a_part(number: int, upload: Upload = UPLOAD) -> UploadPart:
    key = f"uploads/{upload.id}/{number}"
    return UploadPart(PartId(f"part_{number:03d}"), upload.id, 10, NOW + number, key)


async def test_an_upload_comes_back_as_it_was_recorded(uploads: UploadStore) -> None:
    await uploads.create(UPLOAD)

    assert await uploads.get("default", UPLOAD.id) == UPLOAD


async def test_another_tenants_upload_is_not_there(uploads: UploadStore) -> None:
    await uploads.create(UPLOAD)

    assert await uploads.get("other", UPLOAD.id) is None
    assert await uploads.get("default", UploadId("upload_2")) is None


async def test_parts_added_at_once_are_all_there(uploads: UploadStore) -> None:
    other = replace(UPLOAD, id=UploadId("upload_10"))
    await uploads.create(UPLOAD)
    await uploads.create(other)
    parts = [a_part(number) for number in range(20)]

    await asyncio.gather(*(uploads.add_part(UPLOAD, part) for part in parts))
    await uploads.add_part(other, a_part(99, other))

    assert list(await uploads.parts(UPLOAD)) == parts
    assert list(await uploads.parts(other)) == [a_part(99, other)]


async def test_an_upload_without_parts_has_none(uploads: UploadStore) -> None:
    await uploads.create(UPLOAD)

    assert list(await uploads.parts(UPLOAD)) == []


@pytest.mark.parametrize("state", [UploadState.COMPLETED, UploadState.CANCELLED])
async def test_an_upload_ends_once(uploads: UploadStore, state: UploadState) -> None:
    await uploads.create(UPLOAD)

    assert await uploads.finish(UPLOAD, state) == replace(UPLOAD, state=state)

    assert await uploads.finish(UPLOAD, UploadState.COMPLETED) is None
    assert await uploads.get("default", UPLOAD.id) == replace(UPLOAD, state=state)


async def test_of_many_who_end_an_upload_one_does(uploads: UploadStore) -> None:
    await uploads.create(UPLOAD)
    states = [UploadState.COMPLETED, UploadState.CANCELLED] * 5

    ended = await asyncio.gather(*(uploads.finish(UPLOAD, state) for state in states))

    [winner] = [upload for upload in ended if upload is not None]
    assert await uploads.get("default", UPLOAD.id) == winner


async def test_what_is_not_there_does_not_end(uploads: UploadStore) -> None:
    assert await uploads.finish(UPLOAD, UploadState.COMPLETED) is None
