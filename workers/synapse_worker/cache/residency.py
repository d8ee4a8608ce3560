"""How much of a model is in the page cache: asked of the kernel, not remembered."""

import ctypes
import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

WINDOW_BYTES = 1 << 30
READ_BYTES = 8 << 20
RESIDENT_SHARE = 0.9
"""From here on a model counts as cached in memory: what is missing is read in passing."""
MAP_FAILED = ctypes.c_void_p(-1).value

_libc: Any = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p


def resident_share(folder: Path) -> float:
    """The share of the folder's bytes in the page cache, 0 to 1. About 5 ms a gigabyte."""
    sizes = [(path, path.stat().st_size) for path in _files(folder)]
    total = sum(size for _, size in sizes)
    return sum(_resident_bytes(path, size) for path, size in sizes) / total if total else 0.0


def warm(folder: Path) -> None:
    """Read all of it once, so that the kernel has it; blocks as long as the disk takes."""
    buffer = memoryview(bytearray(READ_BYTES))
    for path in _files(folder):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_SEQUENTIAL)
            while os.readv(descriptor, [buffer]):
                pass
        finally:
            os.close(descriptor)


def available_memory_bytes() -> int:
    """What the kernel could still give, page cache that it can drop included."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def _files(folder: Path) -> Iterator[Path]:
    return (Path(root, name) for root, _, names in os.walk(folder) for name in names)


def _resident_bytes(path: Path, size: int) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        starts = range(0, size, WINDOW_BYTES)
        pages = sum(_resident_pages(descriptor, at, min(WINDOW_BYTES, size - at)) for at in starts)
    finally:
        os.close(descriptor)
    return min(size, pages * mmap.PAGESIZE)


def _resident_pages(descriptor: int, start: int, length: int) -> int:
    address = _libc.mmap(
        None,
        ctypes.c_size_t(length),
        mmap.PROT_READ,
        mmap.MAP_SHARED,
        descriptor,
        ctypes.c_int64(start),
    )
    if address == MAP_FAILED:
        return 0
    seen = bytearray(-(-length // mmap.PAGESIZE))
    try:
        found = (ctypes.c_ubyte * len(seen)).from_buffer(seen)
        _libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(length), found)
        del found
    finally:
        _libc.munmap(ctypes.c_void_p(address), ctypes.c_size_t(length))
    return seen.count(1)
