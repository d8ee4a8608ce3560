"""Reads a safetensors file: a JSON header that says where each tensor lies, then their bytes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synapse_worker.downloads import ends_early, refuse_pointer
from synapse_worker.errors import WorkerError
from synapse_worker.path_text import text_of

LENGTH_BYTES = 8
ALIGNED_BYTES = 4
MAX_HEADER_BYTES = 100_000_000
"""What the format allows: what begins with a greater number is another kind of file."""

TYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32}


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of a tensor lie: in the file of that name, from `offset` on."""

    file: str
    offset: int


@dataclass(frozen=True, slots=True)
class Tensors:
    """The tensors of a file by their names, read only when touched: windows onto the file.

    `places` has those in FP32 that an engine can use as they lie there.
    """

    values: Mapping[str, NDArray[Any]]
    places: Mapping[str, Place]


def read_tensors(path: Path) -> Tensors:
    """What a file holds.

    Raises:
        WorkerError: it is no such file, is not there as a whole, or holds a type that is not
            understood.
    """
    try:
        refuse_pointer(path)
        data = np.memmap(path, dtype=np.uint8, mode="r")
        start = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES].tobytes(), "little")
        header = _header(path, data, start)
        return Tensors(
            {name: _tensor(data[start:], entry) for name, entry in header.items()},
            {
                name: Place(text_of(Path(path.name)), offset)
                for name, entry in header.items()
                if entry["dtype"] == "F32"
                and (offset := start + entry["data_offsets"][0]) % ALIGNED_BYTES == 0
            },
        )
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise WorkerError(f"{path} is not a usable safetensors file: {error!r}") from error


def _header(path: Path, data: NDArray[np.uint8], start: int) -> dict[str, Any]:
    """The entry of each tensor; they lie from `start` on.

    Raises:
        WorkerError: the file ends before the last one does.
    """
    if start > MAX_HEADER_BYTES:
        raise ValueError(f"its header would have {start - LENGTH_BYTES} bytes")
    if data.size < start:
        raise ends_early(path, data.size, start)
    header: dict[str, Any] = json.loads(data[LENGTH_BYTES:start].tobytes())
    header.pop("__metadata__", None)
    ends = [entry["data_offsets"][1] for entry in header.values()]
    whole = start + max(ends, default=0)
    if data.size < whole:
        raise ends_early(path, data.size, whole)
    return header


def _tensor(data: NDArray[np.uint8], entry: Mapping[str, Any]) -> NDArray[Any]:
    start, end = entry["data_offsets"]
    return data[start:end].view(TYPES[entry["dtype"]]).reshape(entry["shape"])
