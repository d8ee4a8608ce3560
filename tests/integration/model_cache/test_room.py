"""Room on the disk: who goes, who stays, and what is told of them."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from synapse_worker.cache import CacheConfig, CacheLevel, ModelCache, Progress
from synapse_worker.cache.residency import resident_share
from synapse_worker.errors import WorkerError
from tests.integration.model_cache.faulty_link import Fault, FaultyLink, publish_model

NAMES = ("one", "two", "three")


@pytest.fixture
def size(store: Path) -> int:
    """Three models of this size are in the store."""
    sizes = {publish_model(store, name=name).total_bytes for name in ("one", "two", "six")}
    publish_model(store, name="three")
    assert len(sizes) == 1
    return sizes.pop() + 10


@pytest.fixture
def two(config: CacheConfig, size: int) -> CacheConfig:
    """Room for two of the three."""
    return replace(config, disk_budget_bytes=2 * size)


async def names(cache: ModelCache) -> list[str]:
    return [model.name for model in await cache.models()]


def used_at(config: CacheConfig, name: str, at: float) -> None:
    for lease in (config.folder / "leases" / name).iterdir():
        os.utime(lease, (at, at))


async def levels(cache: ModelCache) -> list[CacheLevel]:
    return [model.level for model in await cache.models()]


async def test_the_least_recently_used_goes_to_make_room(two: CacheConfig) -> None:
    cache = ModelCache(two)
    for name in ("one", "two", "one", "three"):
        await cache.ensure(name)

    assert await names(cache) == ["one", "three"]
    assert not (two.folder / "models/two").exists() or not list(
        (two.folder / "models/two").iterdir()
    )


async def test_when_something_was_used_is_known_after_a_restart(two: CacheConfig) -> None:
    for name in ("one", "two", "one"):
        await ModelCache(two).ensure(name)

    restarted = ModelCache(two)
    await restarted.ensure("three")

    assert await names(restarted) == ["one", "three"]


async def test_a_model_in_use_stays_and_another_goes(two: CacheConfig) -> None:
    cache = ModelCache(two)
    with await cache.lease("one") as one:
        await cache.ensure("two")
        await cache.ensure("three")

        assert await names(cache) == ["one", "three"]
        assert (one.path / "1/weights.bin").is_file()


async def test_a_pinned_model_stays_though_it_was_used_least(two: CacheConfig) -> None:
    cache = ModelCache(replace(two, pinned=frozenset({"one"})))
    for name in NAMES:
        await cache.ensure(name)

    assert await names(cache) == ["one", "three"]
    assert [model.pinned for model in await cache.models()] == [True, False]


async def test_where_everything_is_in_use_there_is_no_room_and_nothing_is_lost(
    two: CacheConfig, link: FaultyLink
) -> None:
    cache = ModelCache(two)
    with await cache.lease("one"), await cache.lease("two"):
        link.asked.clear()
        with pytest.raises(WorkerError, match="There is no room for three"):
            await cache.lease("three")

        assert await names(cache) == ["one", "two"]
        assert not link.parts_asked, "that was known before anything was fetched"
    await cache.ensure("three")
    assert await names(cache) == ["one", "three"], "the one released last was used last"


async def test_a_lease_counts_as_use_until_it_ends(two: CacheConfig) -> None:
    cache = ModelCache(two)
    one = await cache.lease("one")
    await cache.ensure("two")
    used_at(two, "one", 1.0)
    used_at(two, "two", 2.0)

    one.release()
    one.release()
    await cache.ensure("three")

    assert await names(cache) == ["one", "three"]


async def test_a_lease_counts_as_use_from_its_start(two: CacheConfig) -> None:
    cache = ModelCache(two)
    await cache.ensure("one")
    used_at(two, "one", 1.0)

    with await cache.lease("one"):  # and its process may be killed
        (model,) = await cache.models()

    assert model.last_used_at > 1.0


async def test_room_on_the_disk_itself_is_looked_at_first(
    config: CacheConfig, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil.disk_usage(config.folder.parent)._replace(free=1 << 20)
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)

    with pytest.raises(WorkerError, match=r"no room for one .* on the disk"):
        await ModelCache(config).ensure("one")


async def test_a_download_that_broke_off_makes_room_too(two: CacheConfig, link: FaultyLink) -> None:
    link.plan = lambda number, asked: Fault(cut_after=0) if asked.path.startswith("one") else None
    cache = ModelCache(two)
    with pytest.raises(WorkerError):
        await cache.ensure("one")
    assert list((two.folder / "drafts/one").iterdir())

    for name in ("two", "three"):
        await cache.ensure(name)

    assert await names(cache) == ["three", "two"]
    assert not list((two.folder / "drafts/one").iterdir())


async def test_what_outlived_its_ttl_is_swept_and_nothing_else(
    config: CacheConfig, size: int
) -> None:
    cache = ModelCache(replace(config, ttl_s=60.0, pinned=frozenset({"two"})))
    for name in NAMES:
        await cache.ensure(name)
    held = await cache.lease("three")
    for name in NAMES:
        used_at(config, name, 1000.0)

    freed = await cache.sweep()

    assert freed == size - 10
    assert await names(cache) == ["three", "two"]
    held.release()
    assert await cache.sweep() == 0, "it was used until just now"


async def test_a_budget_that_became_smaller_holds_after_the_next_sweep(two: CacheConfig) -> None:
    cache = ModelCache(two)
    for name in ("one", "two"):
        await cache.ensure(name)
    assert two.disk_budget_bytes is not None

    smaller = ModelCache(replace(two, disk_budget_bytes=two.disk_budget_bytes // 2))
    await smaller.sweep()

    assert await names(smaller) == ["two"]


async def test_what_a_killed_process_had_begun_to_delete_is_swept(config: CacheConfig) -> None:
    trash = config.folder / "trash" / "half"
    trash.mkdir(parents=True)
    (trash / "weights.bin").write_bytes(b"x")

    await ModelCache(config).sweep()

    assert not trash.exists()


async def test_a_model_damaged_by_hand_is_fetched_again(config: CacheConfig, size: int) -> None:
    folder = await ModelCache(config).ensure("one")
    (folder / "manifest.json").write_text("{")
    (folder / "1/weights.bin").unlink()
    cache = ModelCache(config)

    assert await cache.models() == []
    assert ((await cache.ensure("one")) / "1/weights.bin").is_file()


async def test_what_is_in_the_page_cache_is_measured(config: CacheConfig, size: int) -> None:
    cache = ModelCache(config)
    folder = await cache.ensure("one")
    assert await levels(cache) == [CacheLevel.DRAM_CACHED], "it was just written"

    for path in (path for path in folder.rglob("*") if path.is_file()):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    if resident_share(folder) > 0.5:
        pytest.skip("this file system keeps its pages: it lies in memory itself")
    assert await levels(cache) == [CacheLevel.NVME_CACHED]


def test_of_a_large_file_that_is_half_in_the_page_cache_half_is_found(tmp_path: Path) -> None:
    size = 96 << 20  # more than is looked at page by page
    (tmp_path / "large.bin").write_bytes(bytes(size))
    descriptor = os.open(tmp_path / "large.bin", os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, size // 2, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)

    share = resident_share(tmp_path)

    if share == 1.0:
        pytest.skip("this file system keeps its pages: it lies in memory itself")
    assert share == pytest.approx(0.5, abs=0.05)


async def test_what_is_told_of_a_model(config: CacheConfig, size: int) -> None:
    told: list[Progress] = []
    cache = ModelCache(config)
    with await cache.lease("one", on_progress=told.append) as lease:
        (model,) = await cache.models()

    assert (model.name, model.version, model.in_use) == ("one", lease.version, True)
    assert model.size_bytes == model.memory_bytes == lease.memory_bytes == size - 10
    assert [each.done_bytes for each in told] == sorted(each.done_bytes for each in told)
    assert told[-1].share == 1.0
