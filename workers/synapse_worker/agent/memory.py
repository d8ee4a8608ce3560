"""How much memory processes hold, and how much more there is for them: read from /proc."""

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from synapse_worker.stubs import PROC, children, stubs_among

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Held:
    """Resident memory in bytes: of Triton and all that come from it, and of each model's part.

    A model's are its backend processes, and their engines.
    """

    all_bytes: int
    model_bytes: Mapping[str, int] = field(default_factory=dict)

    def of(self, model: str) -> int:
        """That of a model; 0 if it has no process."""
        return self.model_bytes.get(model, 0)


def held_by(triton_pid: int, proc: Path = PROC) -> Held:
    """The memory of a Triton and its models, at one look at its processes.

    To find them takes a look at each of its threads, of which there are dozens.
    """
    trees = {pid: tree_bytes(pid, proc) for pid in children(triton_pid, proc)}
    models: Counter[str] = Counter()
    for pid, model in stubs_among(trees, proc).items():
        models[model] += trees[pid]
    return Held(_own_bytes(triton_pid, proc) + sum(trees.values()), models)


def tree_bytes(pid: int, proc: Path = PROC) -> int:
    """Resident memory of a process and all that come from it.

    Pages of a file that several of them map count for each.
    """
    return _own_bytes(pid, proc) + sum(tree_bytes(child, proc) for child in children(pid, proc))


def free_bytes(proc: Path = PROC, cgroup: Path = CGROUP) -> int | None:
    """What this machine, or the container if it is less, could still hand out."""
    known = [size for size in (_machine_free(proc), _container_free(cgroup)) if size is not None]
    return min(known, default=None)


def _own_bytes(pid: int, proc: Path) -> int:
    try:
        return int((proc / str(pid) / "statm").read_text().split()[1]) * PAGE_BYTES
    except (OSError, IndexError):  # it has ended
        return 0


def _machine_free(proc: Path) -> int | None:
    try:
        lines = (proc / "meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = (line.split() for line in lines)
    return next((int(size[1]) * 1024 for size in sizes if size[0] == "MemAvailable:"), None)


def _container_free(cgroup: Path) -> int | None:
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
    except (OSError, ValueError):
        return None
    return None if limit == "max" else max(0, int(limit) - used)
