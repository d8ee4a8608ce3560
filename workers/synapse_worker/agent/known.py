"""What is known of one model of a worker."""

import asyncio
import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from synapse_worker.agent.shelf import Taken
from synapse_worker.cache import CacheLevel, Held


class Doing(StrEnum):
    """What is under way with a model."""

    NOTHING = ""
    DOWNLOADING = "downloading"
    LOADING = "loading"
    UNLOADING = "unloading"


@dataclass(frozen=True)
class Operation:
    """A load or an unload, which all who ask for the same wait for."""

    is_load: bool
    version: str | None
    task: asyncio.Task[None]

    def brings(self, version: str | None) -> bool:
        """Whether it is a load of this version, or of any where none is named."""
        return self.is_load and version in (None, self.version)


@dataclass
class Known:
    """One model. `is_loaded`: Triton has it, or is to have it when it is up again.

    `leaving` ends when Triton has let go of it, which is waited for until `leaves_by` (monotonic
    seconds); if it `overran`, its load takes longer than anybody waits, and it goes when it is up.
    `ended` is how many of its requests Triton had answered when it was last asked. `asked_at` is
    when work last asked for it, where anybody has told: Triton, by which `last_used_at` goes,
    counts probes as well. `memory_bytes` is what its manifest says, or what was measured last;
    `fresh_bytes` the same right after its load, before use made it grow: so much a new load needs.
    """

    name: str
    version: str = ""
    level: CacheLevel = CacheLevel.REMOTE
    is_loaded: bool = False
    doing: Doing = Doing.NOTHING
    progress: float | None = None
    error: str = ""
    memory_bytes: int | None = None
    fresh_bytes: int | None = None
    last_used_at: float | None = None
    asked_at: float | None = None
    ended: int = 0
    taken: Taken | None = None
    operation: Operation | None = None
    leaving: asyncio.Task[None] | None = None
    leaves_by: float = 0.0
    overran: bool = False

    @property
    def takes_memory(self) -> bool:
        """Whether Triton still holds it."""
        return self.is_loaded or self.leaving is not None

    def held(self, *, is_busy: bool, is_pinned: bool, yields: bool = False) -> Held:
        """For the choice of what has to go; one that is busy does if it yields, after the idle."""
        used_at = (self.last_used_at or 0.0) if self.asked_at is None else self.asked_at
        return Held(
            self.name,
            self.memory_bytes or 0,
            math.inf if is_busy else used_at,
            in_use=(is_busy and not yields) or not self.is_loaded,
            pinned=is_pinned,
        )


def names(models: Iterable[Known]) -> str:
    """For a sentence."""
    return ", ".join(model.name for model in models)
