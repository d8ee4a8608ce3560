"""What other processes do, and what becomes of it when they are killed."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from synapse_worker.cache import CacheConfig, ModelCache
from synapse_worker.cache.draft import JOURNAL
from synapse_worker.cache.manifest import Manifest
from tests.integration.model_cache.faulty_link import (
    MODEL,
    PART_BYTES,
    FaultyLink,
    content,
    publish_model,
)
from tests.patience import PATIENCE_S, wait_until

PARTS = 40
LEASE = """
import asyncio, sys, time
from pathlib import Path
from synapse_worker.cache import CacheConfig, ModelCache
lease = asyncio.run(ModelCache(CacheConfig(sys.argv[1], Path(sys.argv[2]))).lease("model"))
print("held", flush=True)
time.sleep(60)
"""


def command(config: CacheConfig) -> list[str]:
    fetch = ("fetch", config.source, MODEL, "--cache", str(config.folder))
    return [sys.executable, "-m", "synapse_worker.cache", *fetch]


@contextlib.contextmanager
def process(arguments: list[str]) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as started:
        try:
            yield started
        finally:
            started.kill()


def finished_parts(config: CacheConfig, manifest: Manifest) -> list[int]:
    """The parts of the large file that the journal tells, in the order they were finished."""
    journal = config.folder / "drafts" / MODEL / manifest.version / JOURNAL
    lines = [line.split() for line in journal.read_text().splitlines()] if journal.exists() else []
    weights = next(at for at, file in enumerate(manifest.files) if file.path == "1/weights.bin")
    return [int(number) for _, file, number in lines if int(file) == weights]


def test_after_kill_9_only_the_missing_parts_are_asked_for(
    config: CacheConfig, link: FaultyLink, store: Path
) -> None:
    manifest = publish_model(store, PARTS)
    link.pace.bytes_per_s = 20 * PART_BYTES
    with process(command(config)) as killed:
        wait_until(lambda: len(finished_parts(config, manifest)) >= PARTS // 4)
    done = set(finished_parts(config, manifest))
    assert killed.returncode == -9
    assert PARTS // 4 <= len(done) < PARTS, "it was killed midway"

    link.pace.bytes_per_s = 0
    link.asked.clear()
    finished = subprocess.run(command(config), check=True, capture_output=True, text=True)

    asked = sorted(asked.start // PART_BYTES for asked in link.parts_asked)
    assert asked == sorted(set(range(PARTS)) - done)
    assert (Path(finished.stdout.strip()) / "1/weights.bin").read_bytes() == content(PARTS)


async def test_what_was_left_behind_is_checked_before_it_is_believed(
    config: CacheConfig, link: FaultyLink, store: Path
) -> None:
    manifest = publish_model(store, PARTS)
    link.pace.bytes_per_s = 20 * PART_BYTES
    with process(command(config)):
        await asyncio.to_thread(wait_until, lambda: len(finished_parts(config, manifest)) >= 6)
    draft = config.folder / "drafts" / MODEL / manifest.version
    *intact, damaged = finished_parts(config, manifest)
    with (draft / "files/1/weights.bin").open("r+b") as file:
        file.seek(damaged * PART_BYTES + 5)
        file.write(b"power cut")
    link.pace.bytes_per_s = 0
    link.asked.clear()

    folder = await ModelCache(config).ensure(MODEL)

    assert (folder / "1/weights.bin").read_bytes() == content(PARTS)
    asked = [asked.start // PART_BYTES for asked in link.parts_asked]
    assert sorted(asked) == sorted(set(range(PARTS)) - set(intact))


def test_two_processes_that_want_the_same_model_fetch_it_once(
    config: CacheConfig, link: FaultyLink, store: Path
) -> None:
    publish_model(store, PARTS)
    link.pace.bytes_per_s = 40 * PART_BYTES

    with process(command(config)) as one, process(command(config)) as other:
        outputs = {one.communicate(timeout=PATIENCE_S)[0], other.communicate(timeout=PATIENCE_S)[0]}

    assert len(outputs) == 1
    assert (one.returncode, other.returncode) == (0, 0)
    assert sorted(a.start // PART_BYTES for a in link.parts_asked) == list(range(PARTS))


def test_when_the_one_that_downloads_is_killed_the_one_that_waits_goes_on(
    config: CacheConfig, link: FaultyLink, store: Path
) -> None:
    manifest = publish_model(store, PARTS)
    link.pace.bytes_per_s = 20 * PART_BYTES

    with process(command(config)) as killed:
        wait_until(lambda: len(finished_parts(config, manifest)) >= 6)
        with process(command(config)) as waiting:
            time.sleep(0.3)
            killed.kill()
            link.pace.bytes_per_s = 0
            folder = Path(waiting.communicate(timeout=PATIENCE_S)[0].strip())

    assert (folder / "1/weights.bin").read_bytes() == content(PARTS)


@pytest.mark.usefixtures("manifest")
async def test_a_model_in_use_by_another_process_is_not_evicted_until_that_dies(
    config: CacheConfig,
) -> None:
    cache = ModelCache(replace(config, disk_budget_bytes=0))
    arguments = [sys.executable, "-c", LEASE, config.source, str(config.folder)]
    with process(arguments) as user:
        assert user.stdout is not None
        assert await asyncio.to_thread(user.stdout.readline) == "held\n"

        assert [model.in_use for model in await cache.models()] == [True]
        assert await cache.sweep() == 0

    assert [model.in_use for model in await cache.models()] == [False]
    assert await cache.sweep() > 0
    assert await cache.models() == []
