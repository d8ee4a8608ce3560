"""What the cache tells of its models."""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class CacheLevel(StrEnum):
    """How near to the accelerator a model is, nearest first."""

    GPU_RESIDENT = "GPU_RESIDENT"
    """Loaded; on a CPU that is the engine's own memory. Only who loads it knows this."""
    DRAM_CACHED = "DRAM_CACHED"
    """On this machine's disk, and nearly all of it in the page cache right now."""
    NVME_CACHED = "NVME_CACHED"
    REMOTE = "REMOTE"


@dataclass(frozen=True, slots=True)
class CachedModel:
    """One version of a model on this machine's disk.

    `memory_bytes` is what the manifest says it takes when loaded, `last_used_at` in seconds since
    the epoch. `in_use` is whether any process of this machine holds a lease on it.
    """

    name: str
    version: str
    level: CacheLevel
    size_bytes: int
    memory_bytes: int
    last_used_at: float
    in_use: bool
    pinned: bool


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is. What an earlier one had left behind counts as done."""

    done_bytes: int
    total_bytes: int

    @property
    def share(self) -> float:
        """From 0 to 1."""
        return self.done_bytes / self.total_bytes if self.total_bytes else 1.0


ProgressListener = Callable[[Progress], None]
"""Called in the event loop, several times a second at most."""
