"""The cache as its users see it."""

from collections.abc import Sequence
from pathlib import Path

from synapse_worker.cache.config import CacheConfig
from synapse_worker.cache.entries import CachedModel, CacheLevel, ProgressListener
from synapse_worker.cache.eviction import Held
from synapse_worker.cache.leases import Lease


class ModelCache:
    """Models of one store on this machine's disk.

    Its methods may be called from one event loop; blocking work runs in threads. Any number of
    processes may have a cache on the same folder: a model is downloaded once, and one that any of
    them uses is not evicted.
    """

    def __init__(self, config: CacheConfig) -> None:
        """Nothing is read or written yet."""
        self._config = config

    async def lease(
        self, name: str, version: str | None = None, on_progress: ProgressListener | None = None
    ) -> Lease:
        """The model on this machine's disk, downloaded if it is not there, and kept until released.

        Without a version it is the store's latest; where the store cannot be reached, the one
        used last of those that are here. Calls for the same model share one download. Marks it
        used. When cancelled the download stops, and the next one goes on where it was.

        Raises:
            WorkerError: there is no such model, no room for it, or it cannot be fetched whole.
        """
        raise NotImplementedError

    async def ensure(
        self, name: str, version: str | None = None, on_progress: ProgressListener | None = None
    ) -> Path:
        """As `lease`, for who only wants it to be there: it may be evicted from now on."""
        raise NotImplementedError

    async def warm(self, name: str, version: str | None = None) -> bool:
        """Read a model that is here into the page cache, if it fits into free memory."""
        raise NotImplementedError

    async def level(self, name: str) -> CacheLevel:
        """How near the nearest version of the model is; REMOTE if none is here, known or not."""
        raise NotImplementedError

    async def models(self) -> list[CachedModel]:
        """What is here, by name and version."""
        raise NotImplementedError

    async def evict(self, name: str, version: str | None = None) -> int:
        """Delete the model's versions (or one) that nobody uses, pinned or not; the bytes freed."""
        raise NotImplementedError

    async def sweep(self) -> int:
        """Delete what has outlived its TTL or the budget, and what dead processes left behind.

        To be called now and then; returns the bytes freed.
        """
        raise NotImplementedError

    def unload_plan(self, needed_bytes: int, loaded: Sequence[Held]) -> list[str]:
        """The keys of loaded models to unload, in this order, before `needed_bytes` are loaded.

        Raises:
            WorkerError: it would not fit even then; nothing should be unloaded.
        """
        raise NotImplementedError
