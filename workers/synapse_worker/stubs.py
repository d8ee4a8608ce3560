"""Watches the backend processes of Triton, because Triton does not.

When a Python model's stub dies, Triton 2.51 keeps reporting server and model as ready and answers
every request with "Stub process … is not healthy", for ever.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from synapse_worker.health import unloading_models

PROC = Path("/proc")
CHUNK_BYTES = 4096
STUB_NAME = "triton_python_backend_stub"

LET_GO_S = 3.0
"""Triton lets go of a model as soon as the last of its stubs has ended as it was told."""

ASK_TIMEOUT_S = 5.0

Stubs = Mapping[int, str]


def live_stubs(triton_pid: int, proc: Path = PROC) -> dict[int, str]:
    """Process id → model name, of every backend stub that Triton has running."""
    return stubs_among(children(triton_pid, proc), proc)


def stubs_among(pids: Iterable[int], proc: Path = PROC) -> dict[int, str]:
    """Process id → model name, of those that are running backend stubs."""
    stubs = {}
    for pid in pids:
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


class Gone:
    """Models without any stub that they had: unloaded, or dead before all they had was answered."""

    def __init__(self) -> None:
        """None yet."""
        self._since: dict[str, float] = {}

    def note(self, lost: Iterable[str], now: Stubs, at: float) -> None:
        """Remember the lost ones, from `at` on (seconds, monotonic), until they have a stub."""
        known = {**dict.fromkeys(lost, at), **self._since}
        here = set(now.values())
        self._since = {model: since for model, since in known.items() if model not in here}

    async def still_held(self, address: str, at: float) -> str | None:
        """One that Triton, at `address`, has not let go of in time: it would wait for ever."""
        overdue = {model for model, since in self._since.items() if at - since >= LET_GO_S}
        if not overdue:
            return None
        try:
            held = await unloading_models(address, ASK_TIMEOUT_S)
        except (OSError, TimeoutError):  # asked again the next time
            return None
        for model in overdue - held:
            del self._since[model]
        return min(overdue & held, default=None)
