"""What a manifest may say."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synapse_worker.cache.manifest import Manifest, ModelFile, content_version
from synapse_worker.errors import WorkerError

PART = 10


def file(path: str, size: int) -> ModelFile:
    content = bytes(size)
    parts = tuple(
        hashlib.sha256(content[at : at + PART]).hexdigest() for at in range(0, size, PART)
    )
    return ModelFile(path, size, hashlib.sha256(content).hexdigest(), parts)


def manifest(*files: ModelFile) -> Manifest:
    return Manifest("llm", "1", files, memory_bytes=7, part_bytes=PART)


def content(**changed: Any) -> bytes:
    raw = json.loads(manifest(file("config.pbtxt", 3), file("1/w.bin", 25)).render())
    return json.dumps(raw | changed).encode()


def changed_file(**changes: Any) -> bytes:
    raw = json.loads(content())
    raw["files"][1].update(changes)
    return json.dumps(raw).encode()


@given(st.lists(st.integers(0, 95), min_size=1, max_size=5))
def test_it_survives_being_written_and_its_parts_cover_every_byte_once(sizes: list[int]) -> None:
    written = manifest(*(file(f"{number}.bin", size) for number, size in enumerate(sizes)))

    read = Manifest.parse(written.render(), "m")

    assert read == written
    for number, size in enumerate(sizes):
        parts = [part for part in read.parts() if part.file == number]
        covered = [at for part in parts for at in range(part.start, part.end)]
        assert covered == list(range(size))


def test_files_are_fetched_beside_each_other() -> None:
    parts = manifest(file("a", 25), file("b", 15)).parts()

    assert [(part.file, part.number) for part in parts] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2)]


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../other/1",
        "1/../../x",
        "",
        "1//w",
        "./w",
        "1\\w",
        "w\0",
        "manifest.json",
        3,
    ],
)
def test_a_path_outside_the_folder_is_refused(path: Any) -> None:
    with pytest.raises(WorkerError, match="no manifest"):
        Manifest.parse(changed_file(path=path), "m")


@pytest.mark.parametrize("path", ["config.pbtxt", "config.pbtxt/w"])
def test_a_path_that_is_there_twice_is_refused(path: str) -> None:
    with pytest.raises(WorkerError, match="twice"):
        Manifest.parse(changed_file(path=path), "m")


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"\xff", "no manifest"),
        (b"[]", "format"),
        (content(format=2), "format"),
        (content(name="../x"), "name"),
        (content(version=""), "name"),
        (content(part_bytes=0), "no bytes"),
        (content(total_bytes=1), "add up"),
        (content(memory_bytes=-1), "number of bytes"),
        (content(files=[]), "no files"),
        (changed_file(size=True), "number of bytes"),
        (changed_file(size=50), "checksums of parts"),
        (changed_file(sha256="x" * 64), "SHA-256"),
        (changed_file(parts=["0" * 63] * 3), "SHA-256"),
        (changed_file(size=0, parts=[]), "only part"),
        (json.dumps({"format": 1}).encode(), "lacks 'name'"),
        (b"[" * 100_000, "no manifest"),
    ],
)
def test_what_contradicts_itself_is_refused_with_the_reason(raw: bytes, why: str) -> None:
    with pytest.raises(WorkerError, match=why):
        Manifest.parse(raw, "m")


def test_the_version_follows_from_the_content_alone() -> None:
    one, other = file("a", 3), file("b", 4)

    assert content_version((one, other)) == content_version((other, one))
    assert content_version((one,)) != content_version((file("c", 3),))
    assert content_version((one,)) != content_version((file("a", 4),))
