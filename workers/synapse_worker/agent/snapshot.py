"""What an agent tells of its worker: the content of a heartbeat."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from synapse_worker.cache import CacheLevel


class AgentState(StrEnum):
    """What the worker is doing."""

    IDLE = "IDLE"
    """Up, with no model loaded."""
    DOWNLOADING = "DOWNLOADING"
    LOADING = "LOADING"
    """Triton starts, or loads a model."""
    READY = "READY"
    INFERRING = "INFERRING"
    DEGRADED = "DEGRADED"
    """It takes nothing: Triton is down, or the worker is being drained. `detail` says why."""


@dataclass(frozen=True)
class ModelStatus:
    """A model that the worker knows.

    `endpoint` is host:port of the gRPC service that answers for it, empty unless it is loaded.
    `doing` is what is under way with it ("downloading", "loading", "unloading"), or empty, and
    `progress` how far that is, 0 to 1, where it can be told. `error` is why its last load failed.
    """

    name: str
    version: str
    level: CacheLevel
    endpoint: str = ""
    is_pinned: bool = False
    doing: str = ""
    progress: float | None = None
    error: str = ""
    memory_bytes: int | None = None
    last_used_at: float | None = None


@dataclass(frozen=True)
class Snapshot:
    """A worker at one moment; times are seconds since the epoch, None is "not measured".

    `queue_length` counts requests that wait in Triton or its engines, `running` those that are
    known to be worked on. Utilisation, use and hit rate are 0 to 1. `free_memory_bytes` is the
    accelerator's; on a CPU, what this machine or container could still take.
    `memory_bytes` is what Triton and its backends hold. `answered_at` is when Triton last said that
    it is well: an agent that lives proves nothing of an engine that hangs. With `has_failed` it has
    died too often to be started again.
    """

    id: str
    state: AgentState
    accelerator: str
    endpoint: str
    models: tuple[ModelStatus, ...]
    at: float
    started_at: float
    answered_at: float = 0.0
    has_failed: bool = False
    detail: str = ""
    restarts: int = 0
    pid: int | None = None
    queue_length: int = 0
    running: int = 0
    gpu_utilisation: float | None = None
    free_memory_bytes: int | None = None
    memory_bytes: int | None = None
    kv_cache_use: float | None = None
    kv_cache_hit_rate: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)
