"""Reads a safetensors file: a JSON header that says where each tensor lies, then their bytes."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synapse_worker.errors import WorkerError
from synapse_worker.path_text import text_of

LENGTH_BYTES = 8
ALIGNED_BYTES = 4
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
        WorkerError: it is no such file, or holds a type that is not understood.
    """
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
        start = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES].tobytes(), "little")
        header = json.loads(data[LENGTH_BYTES:start].tobytes())
        header.pop("__metadata__", None)
        return Tensors(
            {name: _tensor(data[start:], entry) for name, entry in header.items()},
            {
                name: Place(text_of(Path(path.name)), offset)
                for name, entry in header.items()
                if entry["dtype"] == "F32"
                and (offset := start + entry["data_offsets"][0]) % ALIGNED_BYTES == 0
            },
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkerError(f"{path} is not a usable safetensors file: {error!r}") from error


def _tensor(data: NDArray[np.uint8], entry: Mapping[str, Any]) -> NDArray[Any]:
    start, end = entry["data_offsets"]
    return data[start:end].view(TYPES[entry["dtype"]]).reshape(entry["shape"])
