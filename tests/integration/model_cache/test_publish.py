"""Publishing a model, and the command for it."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from synapse_worker.cache.manifest import Manifest
from synapse_worker.cache.publishing import Edition, describe, publish
from synapse_worker.errors import WorkerError
from tests.integration.model_cache.faulty_link import MODEL, publish_model


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "synapse_worker.cache", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "llm"
    (found / "1").mkdir(parents=True)
    (found / "1/w.bin").write_bytes(bytes(100))
    (found / "config.pbtxt").write_text("")
    return found


def test_the_command_publishes_and_fetches(folder: Path, tmp_path: Path) -> None:
    store, cache = str(tmp_path / "store"), str(tmp_path / "cache")

    published = command("publish", str(folder), store, "--version", "7", "--memory-mib", "3")
    fetched = command("fetch", store, "llm", "--cache", cache)

    assert (published.returncode, fetched.returncode) == (0, 0)
    assert published.stderr.startswith("llm 7:")
    assert fetched.stdout.strip() == f"{cache}/models/llm/7"
    assert (Path(cache) / "models/llm/7/1/w.bin").read_bytes() == bytes(100)
    manifest = Manifest.parse((Path(cache) / "models/llm/7/manifest.json").read_bytes(), "m")
    assert manifest.memory_bytes == 3 << 20


def test_the_command_says_in_one_line_what_is_wrong(tmp_path: Path) -> None:
    failed = command("fetch", str(tmp_path), "llm", "--cache", str(tmp_path / "cache"))

    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert "has no llm" in failed.stderr


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    failed = command("publish", str(tmp_path / "typo"), str(tmp_path / "store"))

    assert failed.returncode == 1
    assert failed.stderr.startswith(f"There is no folder {tmp_path}/typo. ")
    assert not (tmp_path / "store").exists()


def test_the_checksums_are_those_of_the_files(folder: Path) -> None:
    manifest = describe(folder, Edition("llm", part_bytes=64))

    by_path = {file.path: file for file in manifest.files}
    assert by_path["1/w.bin"].sha256 == hashlib.sha256(bytes(100)).hexdigest()
    parts = (hashlib.sha256(bytes(64)), hashlib.sha256(bytes(36)))
    assert by_path["1/w.bin"].parts == tuple(part.hexdigest() for part in parts)


def test_the_same_files_are_the_same_version_and_are_not_copied_twice(store: Path) -> None:
    first = publish_model(store, name=MODEL)
    copied = (store / MODEL / first.version / "1/weights.bin").stat()

    source = store.parent / f"source-{MODEL}-None-0"
    again = publish(source, str(store), Edition(MODEL, part_bytes=first.part_bytes))

    assert again == first
    found = (store / MODEL / first.version / "1/weights.bin").stat()
    assert (found.st_ino, found.st_mtime_ns) == (copied.st_ino, copied.st_mtime_ns)


def test_a_version_is_not_published_again_with_other_files(store: Path) -> None:
    publish_model(store, version="1")

    with pytest.raises(WorkerError, match="with other files"):
        publish_model(store, version="1", seed=2)


def test_what_is_published_last_is_the_latest(store: Path) -> None:
    for version, seed in (("2", 1), ("1", 2)):
        publish_model(store, version=version, seed=seed)

    assert (store / MODEL / "latest").read_text() == "1\n"


def test_an_empty_folder_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()

    with pytest.raises(WorkerError, match="no files"):
        publish(tmp_path / "none", str(tmp_path / "store"), Edition("none"))


def test_only_s3_and_folders_can_be_published_to(folder: Path) -> None:
    with pytest.raises(WorkerError, match="https://"):
        publish(folder, "https://models.example", Edition("llm"))


def test_a_model_fetched_from_a_store_can_be_published_to_another(
    folder: Path, tmp_path: Path
) -> None:
    first = publish(folder, str(tmp_path / "store"), Edition("llm"))
    cached = tmp_path / "store" / "llm" / first.version

    assert publish(cached, str(tmp_path / "other"), Edition("llm")) == first
