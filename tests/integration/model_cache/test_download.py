"""Downloads over a link that does what links do."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections import Counter
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path

import pytest

from synapse_worker.cache import CacheConfig, ModelCache, Progress
from synapse_worker.cache.manifest import MANIFEST, Manifest
from synapse_worker.cache.publishing import Edition, publish
from synapse_worker.errors import UnknownModel, WorkerError
from tests.integration.model_cache.faulty_link import (
    MODEL,
    PART_BYTES,
    Fault,
    FaultyLink,
    content,
    publish_model,
)

WEIGHTS = "1/weights.bin"
PARTS = 8


def assert_whole(folder: Path, manifest: Manifest, seed: int = 0) -> None:
    assert (folder / WEIGHTS).read_bytes() == content(PARTS, seed)
    found = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert found == {file.path for file in manifest.files} | {MANIFEST}


def starts(link: FaultyLink) -> list[int]:
    return sorted(asked.start // PART_BYTES for asked in link.parts_asked)


def stalls_after(seconds: float, config: CacheConfig) -> CacheConfig:
    return replace(config, transfer=replace(config.transfer, stall_timeout_s=seconds))


async def test_every_part_is_asked_for_once_and_the_model_is_whole(
    config: CacheConfig, link: FaultyLink, manifest: Manifest
) -> None:
    told: list[Progress] = []

    folder = await ModelCache(config).ensure(MODEL, on_progress=told.append)

    assert_whole(folder, manifest)
    assert folder == config.folder / "models" / MODEL / manifest.version
    assert starts(link) == list(range(PARTS))
    assert told[-1] == Progress(manifest.total_bytes, manifest.total_bytes)
    assert not (config.folder / "drafts" / MODEL / manifest.version).exists()


async def test_a_model_that_is_here_is_not_asked_for_again(
    config: CacheConfig, link: FaultyLink, manifest: Manifest
) -> None:
    first = await ModelCache(config).ensure(MODEL)
    link.asked.clear()

    second = await ModelCache(config).ensure(MODEL, manifest.version)

    assert first == second
    assert link.asked == [], "with the version given the store is not needed at all"


async def test_from_a_folder(store: Path, config: CacheConfig, manifest: Manifest) -> None:
    folder = await ModelCache(replace(config, source=str(store))).ensure(MODEL)

    assert_whole(folder, manifest)


async def test_an_older_version_can_be_asked_for(config: CacheConfig, store: Path) -> None:
    old = publish_model(store, version="1")
    publish_model(store, version="2", seed=9)
    cache = ModelCache(config)

    assert_whole(await cache.ensure(MODEL, "1"), old)
    assert (await cache.ensure(MODEL)).name == "2"
    assert [model.version for model in await cache.models()] == ["1", "2"]


async def test_calls_at_once_share_one_download(
    config: CacheConfig, link: FaultyLink, manifest: Manifest
) -> None:
    cache, other = ModelCache(config), ModelCache(config)

    calls = (each.ensure(MODEL) for each in (cache, cache, other, other))
    folders = await asyncio.gather(*calls)

    assert len(set(folders)) == 1
    assert starts(link) == list(range(PARTS))


async def test_a_part_that_comes_corrupt_is_fetched_again_and_no_other(
    config: CacheConfig, link: FaultyLink, manifest: Manifest
) -> None:
    link.plan = lambda number, asked: Fault(corrupt=True) if number == 3 else None

    assert_whole(await ModelCache(config).ensure(MODEL), manifest)

    counts = Counter(starts(link))
    assert sorted(counts.values()) == [1] * (PARTS - 1) + [2]


async def test_a_part_that_stays_corrupt_is_refused_and_nothing_of_it_is_kept(
    config: CacheConfig, link: FaultyLink, manifest: Manifest
) -> None:
    link.plan = lambda number, asked: Fault(corrupt=True) if asked.start == PART_BYTES else None
    cache = ModelCache(config)

    with pytest.raises(WorkerError, match="wrong SHA-256"):
        await cache.ensure(MODEL)

    assert Counter(starts(link))[1] == 3, "bounded"
    assert await cache.models() == []
    assert not list((config.folder / "drafts").rglob("*.bin"))

    link.plan = lambda number, asked: None
    assert_whole(await cache.ensure(MODEL), manifest)


async def test_a_file_that_is_corrupt_in_the_store_is_refused(
    config: CacheConfig, store: Path, manifest: Manifest
) -> None:
    damaged = store / MODEL / manifest.version / WEIGHTS
    damaged.write_bytes(bytes(damaged.stat().st_size))

    with pytest.raises(WorkerError, match="wrong SHA-256"):
        await ModelCache(config).ensure(MODEL)


async def test_connections_that_break_off_are_made_again(
    config: CacheConfig, link: FaultyLink, manifest: Manifest
) -> None:
    link.plan = lambda number, asked: Fault(cut_after=1000) if number % 3 == 0 else None

    assert_whole(await ModelCache(config).ensure(MODEL), manifest)


async def test_a_busy_store_is_asked_again_after_the_time_it_names(
    config: CacheConfig, link: FaultyLink, manifest: Manifest
) -> None:
    busy = Fault(status=HTTPStatus.SERVICE_UNAVAILABLE, headers=(("Retry-After", "1"),))
    link.plan = lambda number, asked: busy if number == 1 else None
    started = time.monotonic()

    assert_whole(await ModelCache(config).ensure(MODEL), manifest)

    assert time.monotonic() - started >= 1


async def test_a_part_that_stalls_is_started_again_on_another_connection(
    config: CacheConfig, link: FaultyLink, manifest: Manifest
) -> None:
    link.plan = lambda number, asked: Fault(hang=True, cut_after=500) if number == 2 else None

    assert_whole(await ModelCache(stalls_after(2.0, config)).ensure(MODEL), manifest)

    assert len(starts(link)) > PARTS


async def test_a_part_that_comes_slowly_is_not_taken_for_one_that_stalls(
    config: CacheConfig, link: FaultyLink, manifest: Manifest
) -> None:
    pause_s, stall_s = 0.8, 5.0
    assert 7 * pause_s > stall_s
    link.plan = lambda number, asked: Fault(pause_s=pause_s) if number == 2 else None

    assert_whole(await ModelCache(stalls_after(stall_s, config)).ensure(MODEL), manifest)

    assert starts(link) == list(range(PARTS))


async def test_a_store_that_never_recovers_is_given_up_and_what_came_is_kept(
    config: CacheConfig, link: FaultyLink, manifest: Manifest
) -> None:
    broken = Fault(status=HTTPStatus.INTERNAL_SERVER_ERROR)
    link.plan = lambda number, asked: broken if asked.start == 7 * PART_BYTES else None
    cache = ModelCache(config)

    with pytest.raises(WorkerError, match=r"4 tries, the last one: .*500"):
        await cache.ensure(MODEL)

    link.plan = lambda number, asked: None
    link.asked.clear()
    assert_whole(await cache.ensure(MODEL), manifest)
    assert 7 in starts(link)
    assert len(starts(link)) < PARTS, "the others were kept"


async def test_a_file_that_changes_midway_is_noticed_and_the_new_one_is_fetched(
    config: CacheConfig, link: FaultyLink, store: Path
) -> None:
    publish_model(store, version="1")
    changed = publish_model(store.parent / "other" / "store", version="1", seed=5)

    def republish() -> None:
        for path in (WEIGHTS, MANIFEST):
            new = store.parent / "other" / "store" / MODEL / "1" / path
            new.replace(store / MODEL / "1" / path)

    link.plan = lambda number, asked: Fault(act=republish) if number == 5 else None
    one_by_one = replace(config, transfer=replace(config.transfer, connections=1))

    assert_whole(await ModelCache(one_by_one).ensure(MODEL, "1"), changed, seed=5)
    assert HTTPStatus.PRECONDITION_FAILED in link.refused, "no bytes of the new file were sent"


async def test_nothing_stays_of_another_model_that_had_the_same_version(
    config: CacheConfig, link: FaultyLink, store: Path
) -> None:
    publish_model(store, name="extra", version="1")
    (store.parent / "source-extra-1-0/left-over.bin").write_bytes(bytes(10))
    shutil.rmtree(store / "extra")
    publish(store.parent / "source-extra-1-0", str(store), Edition("extra", "1"))
    link.plan = lambda number, asked: Fault(cut_after=0) if "weights" in asked.path else None
    with pytest.raises(WorkerError):
        await ModelCache(config).ensure("extra")
    shutil.rmtree(store / "extra")
    manifest = publish_model(store, name="extra", version="1", seed=3)
    link.plan = lambda number, asked: None

    assert_whole(await ModelCache(config).ensure("extra"), manifest, seed=3)


async def test_a_file_that_never_stops_changing_is_refused(
    config: CacheConfig, link: FaultyLink, store: Path, manifest: Manifest
) -> None:
    weights = store / MODEL / manifest.version / WEIGHTS
    link.plan = lambda number, asked: Fault(act=lambda: os.utime(weights))

    with pytest.raises(WorkerError, match="changed in the store"):
        await ModelCache(config).ensure(MODEL)


async def test_a_cancelled_download_stops_and_the_next_one_goes_on(
    config: CacheConfig, link: FaultyLink, manifest: Manifest
) -> None:
    reached = threading.Event()

    def plan(number: int, asked: object) -> Fault | None:
        return Fault(act=reached.set, hang=True) if number > 4 else None

    link.plan = plan
    cache = ModelCache(config)
    call = asyncio.create_task(cache.ensure(MODEL))
    await asyncio.to_thread(reached.wait)
    started = time.monotonic()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert time.monotonic() - started < 30, "threads that wait for bytes are woken up"

    link.plan = lambda number, asked: None
    link.asked.clear()
    assert_whole(await cache.ensure(MODEL), manifest)
    assert len(starts(link)) == PARTS - 4


async def test_a_model_that_does_not_exist_is_refused(
    config: CacheConfig, manifest: Manifest
) -> None:
    cache = ModelCache(config)

    with pytest.raises(UnknownModel, match="has no nothing"):
        await cache.ensure("nothing")
    with pytest.raises(UnknownModel, match="has no model 9"):
        await cache.ensure(MODEL, "9")
    with pytest.raises(WorkerError, match="not a name"):
        await cache.ensure("../model")


async def test_a_store_that_is_away_does_not_keep_from_using_what_is_here(
    config: CacheConfig, manifest: Manifest
) -> None:
    await ModelCache(config).ensure(MODEL)
    away = ModelCache(replace(config, source="http://127.0.0.1:9"))

    assert (await away.ensure(MODEL)).name == manifest.version
    with pytest.raises(WorkerError, match="cannot be reached"):
        await away.ensure("other")


async def test_s3_that_is_away_is_asked_as_often_as_any_other_store(
    config: CacheConfig, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    await ModelCache(config).ensure(MODEL)
    calls = 0

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        calls += 1
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        settings = {"ENDPOINT_URL": f"http://127.0.0.1:{port}", "DEFAULT_REGION": "eu-central-1"}
        for name, value in {**settings, "ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        away = ModelCache(replace(config, source="s3://bucket/models"))

        assert (await away.ensure(MODEL)).name == manifest.version
        assert calls == 2, "who has one need not wait long"
        with pytest.raises(WorkerError, match="cannot be reached"):
            await away.ensure("other")
        assert calls == 2 + config.transfer.attempts


async def test_a_server_without_ranges_is_refused(
    config: CacheConfig, link: FaultyLink, manifest: Manifest
) -> None:
    link.plan = lambda number, asked: Fault(
        status=HTTPStatus.OK, headers=(("Content-Type", "text/html"),)
    )

    with pytest.raises(WorkerError, match="does not answer byte ranges"):
        await ModelCache(config).ensure(MODEL)


async def test_a_store_that_forbids_is_not_asked_again(
    config: CacheConfig, link: FaultyLink, manifest: Manifest
) -> None:
    link.plan = lambda number, asked: Fault(status=HTTPStatus.FORBIDDEN)

    one_by_one = replace(config, transfer=replace(config.transfer, connections=1))

    with pytest.raises(WorkerError, match=r"refuses .*403"):
        await ModelCache(one_by_one).ensure(MODEL)

    assert len(link.parts_asked) == 1


async def test_a_download_is_faster_than_any_one_connection(
    config: CacheConfig, link: FaultyLink, store: Path
) -> None:
    # How much of a link it takes is for the benchmark to say: here other tests want the cores too.
    parts, parts_per_s = 300, 25
    publish_model(store, parts)
    link.connection_rate = parts_per_s * PART_BYTES
    started = time.monotonic()

    await ModelCache(config).ensure(MODEL)

    assert time.monotonic() - started < 0.8 * parts / parts_per_s
