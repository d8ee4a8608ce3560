"""A model that grows on the disk."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from synapse_worker.cache.draft import JOURNAL, Draft
from synapse_worker.cache.manifest import Manifest, ModelFile, Part
from synapse_worker.cache.worklist import Worklist

CONTENT = bytes(range(100))
PART = 40


@pytest.fixture
def manifest() -> Manifest:
    parts = tuple(hashlib.sha256(CONTENT[at : at + PART]).hexdigest() for at in (0, 40, 80))
    whole = ModelFile("1/w.bin", len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), parts)
    return Manifest("m", "1", (whole,), memory_bytes=0, part_bytes=PART)


def bring(draft: Draft, part: Part) -> None:
    draft.write(part, part.start, memoryview(CONTENT[part.start : part.end]))
    draft.finish(part)


def numbers(parts: list[Part]) -> list[int]:
    return [part.number for part in parts]


def test_what_was_finished_is_left_behind_and_the_rest_is_missing(
    tmp_path: Path, manifest: Manifest
) -> None:
    first = Draft(tmp_path, manifest)
    bring(first, first.missing()[1])
    first.close()

    second = Draft(tmp_path, manifest)

    assert (numbers(second.left_behind()), numbers(second.missing())) == ([1], [0, 2])
    assert second.is_intact(second.left_behind()[0])
    assert not second.is_intact(second.missing()[0])
    second.close()


def test_a_line_of_the_journal_that_is_cut_off_does_not_count_and_hides_no_other(
    tmp_path: Path, manifest: Manifest
) -> None:
    first = Draft(tmp_path, manifest)
    bring(first, first.missing()[0])
    first.close()
    with (tmp_path / JOURNAL).open("a") as journal:
        journal.write("+ 0 1")  # the process died before the end of the line

    second = Draft(tmp_path, manifest)
    assert numbers(second.left_behind()) == [0]
    bring(second, second.missing()[1])
    second.close()

    third = Draft(tmp_path, manifest)
    assert numbers(third.left_behind()) == [0, 2]
    third.close()


@pytest.mark.parametrize("line", ["+ 7 0\n", "+ 0 9\n", "nonsense\n", "+ x y\n", "\n"])
def test_a_line_that_means_nothing_is_passed_over(
    tmp_path: Path, manifest: Manifest, line: str
) -> None:
    (tmp_path / JOURNAL).write_text(line)

    draft = Draft(tmp_path, manifest)

    assert numbers(draft.missing()) == [0, 1, 2]
    draft.close()


def test_a_part_that_was_forgotten_is_missing_from_then_on(
    tmp_path: Path, manifest: Manifest
) -> None:
    first = Draft(tmp_path, manifest)
    for part in first.missing():
        bring(first, part)
    first.forget(manifest.parts()[1])
    first.close()

    second = Draft(tmp_path, manifest)

    assert numbers(second.missing()) == [1]
    second.close()


def test_the_room_is_taken_from_the_start(tmp_path: Path, manifest: Manifest) -> None:
    draft = Draft(tmp_path, manifest)

    found = (draft.files / "1/w.bin").stat()
    assert found.st_size == len(CONTENT)
    assert found.st_blocks > 0
    draft.close()


def test_work_ends_when_every_part_is_intact(tmp_path: Path, manifest: Manifest) -> None:
    first = Draft(tmp_path, manifest)
    bring(first, first.missing()[0])
    first.close()
    second = Draft(tmp_path, manifest)
    worklist = Worklist(second)

    done: list[tuple[int, bool]] = []
    while (task := worklist.next()) is not None:
        if task.is_here and not done:
            worklist.fetch_again(task)  # as if it were wrong
        else:
            worklist.succeed(task)
        done.append((task.part.number, task.is_here))

    assert done == [(0, True), (1, False), (2, False), (0, False)]
    assert (worklist.open_parts, worklist.missing_bytes) == (0, 0)
    second.close()
