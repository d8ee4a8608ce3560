"""Reads what a GGUF model file says of itself: standard library only, no byte of the weights."""

import math
import mmap
import re
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synapse_worker.downloads import AGAIN, ends_early, refuse_pointer
from synapse_worker.errors import WorkerError
from synapse_worker.path_text import text_of

MAGIC = b"GGUF"
STRING, ARRAY = 8, 9
SCALARS = dict(enumerate(("<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?"))) | {
    10: "<Q",
    11: "<q",
    12: "<d",
}
ALIGNMENT = "general.alignment"
ALIGNED_BYTES = 32
"""Where the file names no other alignment."""

BLOCKS = {
    (1, 1): (24,),
    (1, 2): (1, 25, 30),
    (1, 4): (0, 26),
    (1, 8): (27, 28),
    (32, 17): (39,),
    (32, 18): (2, 20),
    (32, 20): (3,),
    (32, 22): (6,),
    (32, 24): (7,),
    (32, 34): (8,),
    (256, 50): (19,),
    (256, 54): (34,),
    (256, 56): (29,),
    (256, 66): (16, 35),
    (256, 74): (17,),
    (256, 82): (22,),
    (256, 84): (10,),
    (256, 98): (18,),
    (256, 110): (11, 21),
    (256, 136): (23,),
    (256, 144): (12,),
    (256, 176): (13,),
    (256, 210): (14,),
}
"""So many items of a tensor lie together, in so many bytes: the numbers of ggml's types."""

BLOCK_OF = {kind: block for block, kinds in BLOCKS.items() for kind in kinds}

PART = re.compile(r"(.+)-00001-of-(\d{5})")
"""How the first file of a model in several is called, without its ending."""


class EndsEarlyError(ValueError):
    """A file ends before all that it says is in it."""


def read_metadata(path: Path) -> dict[str, Any]:
    """Key → value; of an array (the vocabulary, the merges) only its length.

    Raises:
        ValueError: it is no GGUF file, or ends early.
    """
    with _opened(path) as reader:
        return reader.pairs()


def read_array(path: Path, key: str) -> list[Any]:
    """What an array holds; nothing where there is no such key."""
    with _opened(path) as reader:
        for _ in range(reader.scalar("<Q")):
            if reader.text() == key:
                return reader.array()
            reader.value()
    return []


def check_whole(path: Path) -> None:
    """Refuse a model whose file, or one of whose files, is not there as a whole.

    Raises:
        WorkerError: one is missing, is none, or ends before its last tensor does.
    """
    for part in _parts(path):
        try:
            refuse_pointer(part)
            size, whole = part.stat().st_size, _whole_bytes(part)
        except FileNotFoundError as error:
            raise WorkerError(f"The model file {part} does not exist", "Fetch it too") from error
        except EndsEarlyError as error:
            raise WorkerError(str(error), AGAIN) from error
        except (OSError, ValueError, KeyError) as error:
            raise WorkerError(f"The model file {part} cannot be read: {error}") from error
        if size < whole:
            raise ends_early(part, size, whole)


def _parts(path: Path) -> list[Path]:
    """The file; where it is the first of several, all of them."""
    found = PART.fullmatch(path.stem)
    if found is None:
        return [path]
    name, count = found.groups()
    numbers = range(1, int(count) + 1)
    return [path.with_name(f"{name}-{number:05d}-of-{count}{path.suffix}") for number in numbers]


def _whole_bytes(path: Path) -> int:
    """How long the file has to be for all of its tensors, in bytes.

    Of the last one only where it begins, if it is of a type that is not known here.
    """
    with _opened(path) as reader:
        tensors = reader.tensors
        aligned = int(reader.pairs().get(ALIGNMENT, ALIGNED_BYTES))
        ends = [reader.tensor_end() for _ in range(tensors)]
        return math.ceil(reader.offset / aligned) * aligned + max(ends) if ends else reader.offset


@contextmanager
def _opened(path: Path) -> Iterator["_Reader"]:
    """At the number of pairs, which follow it."""
    with path.open("rb") as file:
        # What is empty cannot be mapped either.
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{text_of(path)} is not a GGUF file")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with data:
        try:
            yield _Reader(data, len(MAGIC))
        except struct.error as error:
            text = f"{text_of(path)} ends early: {len(data)} bytes are not even its header"
            raise EndsEarlyError(text) from error


class _Reader:
    """`offset` is where it is; `tensors` is how many are told of behind the pairs."""

    def __init__(self, data: mmap.mmap, offset: int) -> None:
        self._data = data
        self.offset = offset
        self.scalar("<I")  # version
        self.tensors: int = self.scalar("<Q")

    def scalar(self, kind: str) -> Any:
        (value,) = struct.unpack_from(kind, self._data, self.offset)
        self.offset += struct.calcsize(kind)
        return value

    def text(self) -> str:
        return str(self.scalar(f"{self.scalar('<Q')}s").decode())

    def pairs(self) -> dict[str, Any]:
        return {self.text(): self.value() for _ in range(self.scalar("<Q"))}

    def value(self) -> Any:
        kind = self.scalar("<I")
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            return self._skip_array()
        return self.scalar(SCALARS[kind])

    def array(self) -> list[Any]:
        _, kind, length = self.scalar("<I"), self.scalar("<I"), self.scalar("<Q")
        if kind == STRING:
            return [self.text() for _ in range(length)]
        return [self.scalar(SCALARS[kind]) for _ in range(length)]

    def tensor_end(self) -> int:
        """Where the next tensor that is told of ends, from where the first one begins."""
        self.text()
        items = math.prod([self.scalar("<Q") for _ in range(self.scalar("<I"))])
        kind, begin = self.scalar("<I"), self.scalar("<Q")
        together, size = BLOCK_OF.get(kind, (1, 0))
        return int(begin + items // together * size)

    def _skip_array(self) -> int:
        kind, length = self.scalar("<I"), self.scalar("<Q")
        if kind == STRING:
            for _ in range(length):
                self.offset += 8 + struct.unpack_from("<Q", self._data, self.offset)[0]
        else:
            self.offset += length * struct.calcsize(SCALARS[kind])
        return int(length)


def main(arguments: list[str]) -> str:
    """What `python -m synapse_worker.gguf FILE [KEY]` prints: all that is there, or the one value.

    Raises:
        SystemExit: it cannot be read, or is not there; the text says what.
    """
    if not 1 <= len(arguments) <= 2:
        raise SystemExit("usage: python -m synapse_worker.gguf FILE [KEY]")
    path, *keys = arguments
    try:
        found = read_metadata(Path(path))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{path} cannot be read: {error}") from error
    if not keys:
        return "".join(f"{key}: {value!r}\n" for key, value in found.items())
    if keys[0] not in found:
        raise SystemExit(f"{path} has no {keys[0]}; it has {', '.join(found)}")
    return str(found[keys[0]])


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]))
