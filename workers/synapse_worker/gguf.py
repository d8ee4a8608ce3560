"""Reads the metadata of a GGUF model file. Standard library only, and not a byte of the weights."""

import mmap
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from synapse_worker.path_text import text_of

MAGIC = b"GGUF"
STRING, ARRAY = 8, 9
SCALARS = dict(enumerate(("<B", "<b", "<H", "<h", "<I", "<i", "<f", "<?"))) | {
    10: "<Q",
    11: "<q",
    12: "<d",
}


def read_metadata(path: Path) -> dict[str, Any]:
    """Key → value; of an array (the vocabulary, the merges) only its length."""
    with _opened(path) as reader:
        return {reader.text(): reader.value() for _ in range(reader.scalar("<Q"))}


def read_array(path: Path, key: str) -> list[Any]:
    """What an array holds; nothing where there is no such key."""
    with _opened(path) as reader:
        for _ in range(reader.scalar("<Q")):
            if reader.text() == key:
                return reader.array()
            reader.value()
    return []


@contextmanager
def _opened(path: Path) -> Iterator["_Reader"]:
    """At the number of pairs, which follow it."""
    with path.open("rb") as file:
        # What is empty cannot be mapped either.
        if file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f"{text_of(path)} is not a GGUF file")
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with data:
        reader = _Reader(data, 4)
        reader.scalar("<I")  # version
        reader.scalar("<Q")  # number of tensors
        yield reader


class _Reader:
    def __init__(self, data: mmap.mmap, offset: int) -> None:
        self._data = data
        self._offset = offset

    def scalar(self, kind: str) -> Any:
        (value,) = struct.unpack_from(kind, self._data, self._offset)
        self._offset += struct.calcsize(kind)
        return value

    def text(self) -> str:
        length = self.scalar("<Q")
        self._offset += length
        return self._data[self._offset - length : self._offset].decode()

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

    def _skip_array(self) -> int:
        kind, length = self.scalar("<I"), self.scalar("<Q")
        if kind == STRING:
            for _ in range(length):
                self._offset += 8 + struct.unpack_from("<Q", self._data, self._offset)[0]
        else:
            self._offset += length * struct.calcsize(SCALARS[kind])
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
    except (OSError, ValueError, struct.error) as error:
        raise SystemExit(f"{path} cannot be read: {error}") from error
    if not keys:
        return "".join(f"{key}: {value!r}\n" for key, value in found.items())
    if keys[0] not in found:
        raise SystemExit(f"{path} has no {keys[0]}; it has {', '.join(found)}")
    return str(found[keys[0]])


if __name__ == "__main__":
    sys.stdout.write(main(sys.argv[1:]))
