"""Reads a safetensors file: a JSON header that says where each tensor lies, then their bytes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synapse_worker.errors import WorkerError

LENGTH_BYTES = 8
TYPES = {"F32": np.float32, "F16": np.float16, "I64": np.int64, "I32": np.int32}


def read_tensors(path: Path) -> Mapping[str, NDArray[Any]]:
    """Name → tensor, read only when touched: the arrays are windows onto the file.

    Raises:
        WorkerError: it is no such file, or holds a type that is not understood.
    """
    try:
        data = np.memmap(path, dtype=np.uint8, mode="r")
        start = LENGTH_BYTES + int.from_bytes(data[:LENGTH_BYTES].tobytes(), "little")
        header = json.loads(data[LENGTH_BYTES:start].tobytes())
        header.pop("__metadata__", None)
        return {name: _tensor(data[start:], entry) for name, entry in header.items()}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkerError(f"{path} is not a usable safetensors file: {error!r}") from error


def _tensor(data: NDArray[np.uint8], entry: Mapping[str, Any]) -> NDArray[Any]:
    start, end = entry["data_offsets"]
    return data[start:end].view(TYPES[entry["dtype"]]).reshape(entry["shape"])
