"""How much of a model is in the page cache: asked of the kernel, not remembered."""

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WINDOW_BYTES = 1 << 20
MAX_WINDOWS = 64
"""Looked at in each file, evenly spread: what is cached comes and goes in long runs."""
RESIDENT_SHARE = 0.9
"""From here on a model counts as cached in memory: what is missing is read in passing."""
MAP_FAILED = ctypes.c_void_p(-1).value

_libc: Any = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p


def resident_share(folder: Path) -> float:
    """The share of the folder's bytes in the page cache, 0 to 1; of large files by samples."""
    sizes = [(path, path.stat().st_size) for path in _files(folder)]
    total = sum(size for _, size in sizes)
    resident = sum(size * _resident_share(path, size) for path, size in sizes if size)
    return resident / total if total else 0.0


def _files(folder: Path) -> Iterator[Path]:
    return (Path(root, name) for root, _, names in os.walk(folder) for name in names)


def _resident_share(path: Path, size: int) -> float:
    windows = -(-size // WINDOW_BYTES)
    step = -(-windows // MAX_WINDOWS) * WINDOW_BYTES
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        flags = b"".join(
            _page_flags(descriptor, at, min(WINDOW_BYTES, size - at)) for at in range(0, size, step)
        )
    finally:
        os.close(descriptor)
    return flags.count(1) / len(flags)


def _page_flags(descriptor: int, start: int, length: int) -> bytes:
    """A byte for each page: 1 if it is in the page cache."""
    flags = bytearray(-(-length // mmap.PAGESIZE))
    address = _libc.mmap(
        None,
        ctypes.c_size_t(length),
        mmap.PROT_READ,
        mmap.MAP_SHARED,
        descriptor,
        ctypes.c_int64(start),
    )
    if address == MAP_FAILED:
        return bytes(flags)
    try:
        found = (ctypes.c_ubyte * len(flags)).from_buffer(flags)
        _libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(length), found)
        del found
    finally:
        _libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(length))
    return bytes(flags)
