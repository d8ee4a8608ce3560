"""Watches the backend processes of Triton, because Triton does not.

When a Python model's stub dies, Triton 2.51 keeps reporting server and model as ready and answers
every request with "Stub process … is not healthy", for ever.
"""

import os
from collections.abc import Mapping
from pathlib import Path

PROC = Path("/proc")
CHUNK_BYTES = 4096
STUB_NAME = "triton_python_backend_stub"

Stubs = Mapping[int, str]


def live_stubs(triton_pid: int, proc: Path = PROC) -> dict[int, str]:
    """Process id → model name, of every backend stub that Triton has running."""
    stubs = {}
    for pid in children(triton_pid, proc):
        try:
            arguments = (proc / str(pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        # A zombie's command line is empty, so a stub that Triton has not reaped is not counted.
        if len(arguments) > 1 and arguments[0].endswith(STUB_NAME.encode()):
            stubs[pid] = Path(arguments[1].decode(errors="replace")).parent.parent.name
    return stubs


def children(pid: int, proc: Path = PROC) -> list[int]:
    """The processes that a process has started, through any of its threads.

    Triton has dozens of threads, and is looked at twice a second by the process that serves
    requests: pathlib and io would keep everybody waiting for milliseconds.
    """
    found: list[int] = []
    try:
        threads = list(os.scandir(proc / str(pid) / "task"))
    except OSError:  # the process ended meanwhile
        return found
    for thread in threads:
        try:
            found += map(int, _read(f"{thread.path}/children").split())
        except OSError:  # the thread ended meanwhile
            continue
    return found


def _read(path: str) -> bytes:
    """All that a file of the kernel says."""
    file = os.open(path, os.O_RDONLY)
    try:
        return b"".join(iter(lambda: os.read(file, CHUNK_BYTES), b""))
    finally:
        os.close(file)


def lost_models(before: Stubs, now: Stubs) -> set[str]:
    """Models that have fewer stubs than before: crashed, or unloaded on purpose."""

    def count(stubs: Stubs, model: str) -> int:
        return sum(1 for name in stubs.values() if name == model)

    return {m for m in set(before.values()) if count(now, m) < count(before, m)}
