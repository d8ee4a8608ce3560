"""Where a worker's models come from: the folders of its repositories, and the model cache."""

from dataclasses import dataclass
from pathlib import Path

from synapse_worker.cache import CachedModel, CacheLevel, Lease, ModelCache, ProgressListener
from synapse_worker.config import WorkerConfig
from synapse_worker.errors import UnknownModel


@dataclass(frozen=True)
class Taken:
    """A model whose files are here, and stay here until it is given back.

    `memory_bytes` is what it is said to take when loaded; 0 if nobody says.
    """

    version: str
    path: Path
    memory_bytes: int = 0
    lease: Lease | None = None

    def give_back(self) -> None:
        """It may be deleted from now on."""
        if self.lease is not None:
            self.lease.release()


class Shelf:
    """The repositories first, then the cache, if there is one."""

    def __init__(self, worker: WorkerConfig, cache: ModelCache | None) -> None:
        """Nothing is fetched yet."""
        self._worker = worker
        self._cache = cache

    async def take(
        self, model: str, version: str | None, on_progress: ProgressListener | None = None
    ) -> Taken:
        """The model's files, downloaded if need be.

        Raises:
            WorkerError: nobody has it, or it cannot be fetched.
        """
        folder = self._folders().get(model)
        if folder is not None and version in (None, latest_version(folder)):
            return Taken(latest_version(folder), folder)
        if self._cache is not None:
            lease = await self._cache.lease(model, version, on_progress)
            return Taken(lease.version, lease.path, lease.memory_bytes, lease)
        if folder is None:
            known = ", ".join(sorted(self._folders())) or "none"
            raise UnknownModel(f"There is no model {model!r} here", f"Choose from: {known}")
        raise UnknownModel(
            f"There is no version {version!r} of {model} here",
            f"There is {latest_version(folder)!r}",
        )

    async def levels(self) -> dict[str, tuple[str, CacheLevel]]:
        """Version and nearness of every model that can be had without a download."""
        levels = {
            model: (latest_version(folder), CacheLevel.NVME_CACHED)
            for model, folder in self._folders().items()
        }
        cached = await self._cache.models() if self._cache is not None else []
        for each in sorted(cached, key=_nearest_first):
            levels.setdefault(each.name, (each.version, each.level))
        return levels

    async def sweep(self) -> None:
        """Let the cache delete what is over its budget or has been unused too long."""
        if self._cache is not None:
            await self._cache.sweep()

    def _folders(self) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for repository in self._worker.model_repositories:
            for config in sorted(repository.glob("*/config.pbtxt")):
                found.setdefault(config.parent.name, config.parent.resolve())
        return found


def _nearest_first(cached: CachedModel) -> tuple[int, float]:
    return list(CacheLevel).index(cached.level), -cached.last_used_at


def latest_version(folder: Path) -> str:
    """The version that Triton takes of a model's folder: the highest number."""
    numbers = [int(path.name) for path in folder.iterdir() if path.name.isdigit()]
    return str(max(numbers, default=1))
