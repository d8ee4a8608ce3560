"""Whether a model's file is there as a whole, by what it says of its tensors."""

import re
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest

from synapse_worker.errors import WorkerError
from synapse_worker.gguf import check_whole, read_metadata
from synapse_worker.safetensors import read_tensors

F32, Q4_1, Q6_K, UNKNOWN = 0, 3, 14, 99
Tensor = tuple[str, Sequence[int], int, int]
"""Name, dimensions, type, and where it begins behind the first one's beginning."""


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def a_gguf(path: Path, tensors: Sequence[Tensor], data: bytes, alignment: int = 32) -> Path:
    pairs = [text("general.alignment") + struct.pack("<II", 4, alignment)]
    pairs += [text("words") + struct.pack("<IIQ", 9, 8, 2) + text("a") + text("b")]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs)
    for name, sizes, kind, begin in tensors:
        head += text(name) + struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
        head += struct.pack("<IQ", kind, begin)
    path.write_bytes(head + bytes(-len(head) % alignment) + data)
    return path


@pytest.mark.parametrize("alignment", [32, 256])
def test_a_file_is_whole_with_its_last_byte_and_not_before(tmp_path: Path, alignment: int) -> None:
    tensors = [("a", (64, 2), Q4_1, 0), ("b", (3, 5), F32, alignment)]
    file = a_gguf(tmp_path / "m.gguf", tensors, bytes(alignment + 60), alignment)
    whole = file.read_bytes()
    check_whole(file)
    assert read_metadata(file)["words"] == 2

    for size in range(len(whole)):
        file.write_bytes(whole[:size])
        with pytest.raises(WorkerError) as raised:
            check_whole(file)
        assert str(file) in raised.value.cause
        if size >= 24:
            assert "ends early" in raised.value.cause
    assert raised.value.cause.endswith(f"it has {len(whole) - 1} of {len(whole)} bytes")
    assert raised.value.remedy == "Wait until its download is done, or fetch it again"


@pytest.mark.parametrize(("kind", "least"), [(Q6_K, 2 * 210), (UNKNOWN, 0)])
def test_of_a_type_that_is_not_known_only_the_beginning_has_to_be_there(
    tmp_path: Path, kind: int, least: int
) -> None:
    file = a_gguf(tmp_path / "m.gguf", [("a", (256, 2), kind, 0)], bytes(least))

    check_whole(file)


def test_what_is_no_model_file_is_told_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_text("nonsense")

    with pytest.raises(WorkerError, match=r"m\.gguf is not a GGUF file"):
        check_whole(tmp_path / "m.gguf")


def test_what_git_has_instead_of_a_file_is_told_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")

    for read in (check_whole, read_tensors):
        with pytest.raises(WorkerError, match=r"pointer of Git LFS\. Run `git lfs pull`"):
            read(tmp_path / "m.gguf")


def test_a_model_in_several_files_wants_them_all(tmp_path: Path) -> None:
    parts = [tmp_path / f"m-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    a_gguf(parts[0], [], b"")
    for part in parts[1:]:
        a_gguf(part, [("a", (8,), F32, 0)], bytes(32))
    check_whole(parts[0])

    parts[2].write_bytes(parts[2].read_bytes()[:-1])
    with pytest.raises(WorkerError, match=rf"{re.escape(str(parts[2]))} ends early"):
        check_whole(parts[0])

    parts[1].unlink()
    with pytest.raises(WorkerError, match=rf"{re.escape(str(parts[1]))} does not exist"):
        check_whole(parts[0])
