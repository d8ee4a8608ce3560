"""What every store of file batches does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from synapse.adapters.aws.file_batches import DynamoFileBatchStore
from synapse.adapters.file_batch_records import file_batch_from_json, file_batch_to_json
from synapse.adapters.local.database import Database
from synapse.adapters.local.file_batch_store import SqliteFileBatchStore
from synapse.domain.access import Principal
from synapse.domain.file_batch import (
    RETENTION_S,
    Cursor,
    FileBatch,
    FileBatchId,
    FileBatchStatus,
    LineFault,
    OpenLine,
    Step,
)
from synapse.domain.job import Usage
from synapse.ports.file_batches import FileBatchStore
from tests.aws import aws
from tests.factories import NOW, a_file_batch
from tests.fake_file_batches import MemoryFileBatchStore
from tests.fakes import FakeClock
from tests.unit.batches.lives import batches


@pytest.fixture(params=["memory", "sqlite", "dynamodb"])
async def batch_store(
    request: pytest.FixtureRequest, clock: FakeClock, tmp_path: Path
) -> AsyncIterator[FileBatchStore]:
    if request.param == "memory":
        yield MemoryFileBatchStore()
    elif request.param == "sqlite":
        database = Database.open(tmp_path / "jobs.db")
        yield SqliteFileBatchStore(database, clock)
        await database.close()
    else:
        with aws() as cloud:
            yield DynamoFileBatchStore(cloud.dynamodb, cloud.files_table)


def next_of(batch: FileBatch, **changes: object) -> FileBatch:
    return replace(batch, revision=batch.revision + 1, **changes)  # type: ignore[arg-type]


async def created(store: FileBatchStore, *names: str, tenant: str = "default") -> list[FileBatch]:
    made = [
        a_file_batch(id=FileBatchId(f"batch_{name}"), caller=Principal(tenant)) for name in names
    ]
    for batch in made:
        await store.create(batch)
    return made


async def test_a_batch_is_kept_with_all_that_is_known_of_it(batch_store: FileBatchStore) -> None:
    batch = a_file_batch(metadata={"": "é", "team": "a"}, output_expires_after_s=3600)
    await batch_store.create(batch)
    step = Step(
        Cursor(3, 90),
        (OpenLine(2, 40),),
        completed=1,
        usage=Usage(3, 4, 1),
        output_parts=("p1",),
    )
    moved = batch.validated(3, 1000, "echo", NOW + 1).stepped(step, NOW + 2)
    moved = next_of(moved, faults=(LineFault("c", "m", "p", 7),), output_file_id="file-1")

    assert await batch_store.save(moved)

    assert await batch_store.get("default", batch.id) == moved


async def test_an_id_is_taken_once(batch_store: FileBatchStore) -> None:
    [batch] = await created(batch_store, "1")

    with pytest.raises(ValueError, match="batch_1"):
        await batch_store.create(replace(batch, endpoint="/v1/embeddings"))

    assert await batch_store.get("default", batch.id) == batch


async def test_of_two_who_saw_the_same_record_one_may_change_it(
    batch_store: FileBatchStore,
) -> None:
    [batch] = await created(batch_store, "1")
    cancelled = next_of(batch).moved(FileBatchStatus.CANCELLING, NOW)

    assert await batch_store.save(cancelled)
    assert not await batch_store.save(next_of(batch, model="late"))

    assert await batch_store.get("default", batch.id) == cancelled


async def test_what_was_never_created_cannot_be_saved(batch_store: FileBatchStore) -> None:
    assert not await batch_store.save(next_of(a_file_batch()))


async def test_a_tenant_sees_its_own_batches_only(batch_store: FileBatchStore) -> None:
    [mine] = await created(batch_store, "1", tenant="mine")
    await created(batch_store, "2", tenant="other")

    assert await batch_store.get("other", mine.id) is None
    assert await batch_store.page("mine", None, 10) == [mine]


async def test_pages_come_newest_first_and_go_on_behind_the_last(
    batch_store: FileBatchStore,
) -> None:
    one, two, three = await created(batch_store, "01", "02", "03")

    assert await batch_store.page("default", None, 2) == [three, two]
    assert await batch_store.page("default", two.id, 2) == [one]
    assert await batch_store.page("default", one.id, 2) == []


async def test_open_are_those_that_have_not_ended_oldest_first(
    batch_store: FileBatchStore,
) -> None:
    one, two, three = await created(batch_store, "01", "02", "03")
    [other] = await created(batch_store, "04", tenant="other")
    assert await batch_store.save(next_of(two).failed([], NOW))
    moved = next_of(three).moved(FileBatchStatus.CANCELLING, NOW)
    assert await batch_store.save(moved)

    assert await batch_store.open() == [one, moved, other]


@given(batches())
def test_a_record_says_all_of_a_batch(batch: FileBatch) -> None:
    assert file_batch_from_json(file_batch_to_json(batch)) == batch


async def test_sqlite_forgets_ended_batches_after_their_retention(
    clock: FakeClock, tmp_path: Path
) -> None:
    database = Database.open(tmp_path / "jobs.db")
    store = SqliteFileBatchStore(database, clock)
    ended, still_open = await created(store, "1", "2")
    assert await store.save(next_of(ended).failed([], NOW))

    clock.now = ended.expires_at + RETENTION_S - 1
    assert await store.purge() == 0
    clock.advance(1)
    assert await store.purge() == 1

    assert await store.page("default", None, 10) == [still_open]
    await database.close()
