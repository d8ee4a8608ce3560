"""A worker of a pool as its agent reports it: an engine, its models, a lease on being alive."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum


class WorkerState(StrEnum):
    """What a worker is doing."""

    IDLE = "IDLE"
    """Up, with no model resident."""
    DOWNLOADING = "DOWNLOADING"
    LOADING = "LOADING"
    """Its engine starts, or loads a model."""
    READY = "READY"
    INFERRING = "INFERRING"
    DEGRADED = "DEGRADED"
    """It cannot answer: its engine is down, or it is being drained."""


class CacheLevel(StrEnum):
    """How near to the accelerator a model's weights are, nearest first."""

    GPU_RESIDENT = "GPU_RESIDENT"
    """Loaded: in the memory of the accelerator, which is the engine's own memory on a CPU."""
    DRAM_CACHED = "DRAM_CACHED"
    NVME_CACHED = "NVME_CACHED"
    REMOTE = "REMOTE"


@dataclass(frozen=True, slots=True)
class WorkerModel:
    """A model that a worker knows, and how near it is."""

    name: str
    version: str
    level: CacheLevel


@dataclass(frozen=True, slots=True)
class Worker:
    """A worker as its last heartbeat showed it.

    It counts as alive until `lease_until` (seconds since the epoch); every heartbeat moves that
    on. `endpoint` is host:port of its gRPC service. Utilisation and shares are from 0 to 1, None
    where nothing measures them.
    """

    id: str
    pool: str
    accelerator: str
    state: WorkerState
    endpoint: str
    models: tuple[WorkerModel, ...]
    started_at: float
    beat_at: float
    lease_until: float
    queue_length: int = 0
    gpu_utilisation: float | None = None
    free_memory_bytes: int | None = None
    kv_cache_use: float | None = None
    kv_cache_hit_rate: float | None = None
    detail: str = ""

    def is_alive(self, now: float) -> bool:
        """Whether its lease still runs."""
        return now < self.lease_until

    @property
    def has_ended(self) -> bool:
        """Whether it gave up, and only its last words are left."""
        return self.state is WorkerState.DEGRADED and not self.endpoint

    def ended(self, why: str) -> Worker:
        """Its last words: they are shown as long as a lease, and nothing is to be had there."""
        return replace(self, state=WorkerState.DEGRADED, endpoint="", models=(), detail=why)

    def is_starting(self) -> bool:
        """Whether it is on its way to answering."""
        return self.state in (WorkerState.DOWNLOADING, WorkerState.LOADING) and not any(
            model.level is CacheLevel.GPU_RESIDENT for model in self.models
        )

    def has(self, model: str) -> bool:
        """Whether it answers for the model now."""
        return self.state is not WorkerState.DEGRADED and any(
            known.name == model and known.level is CacheLevel.GPU_RESIDENT for known in self.models
        )
