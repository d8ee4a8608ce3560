"""All pools of one machine: who works in them, and how many of each there are."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from synapse.adapters.catalogue import MODEL_FILE
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool, PoolSize
from synapse_server.config import LocalPool, ServerConfig, StartError
from synapse_server.crew import Crew, CrewMember
from synapse_server.local_worker import LocalWorker, WorkerSetup
from synapse_worker.agent.shelf import latest_version
from synapse_worker.config import BUNDLED_MODELS
from synapse_worker.errors import WorkerError

if TYPE_CHECKING:
    from synapse.ports import Clock, WorkerRegistry

MB = 1_000_000
PYTHON_BACKEND = re.compile(r'^\s*backend\s*:\s*"python"', re.MULTILINE)
FIXED_SIZE = PoolSize(desired=1, ready=1, starting=0)


class LocalFleet:
    """The `Capacity` of this machine: a crew for each pool that is started here."""

    def __init__(
        self,
        config: ServerConfig,
        specs: Sequence[ModelSpec],
        registry: WorkerRegistry,
        clock: Clock,
    ) -> None:
        """Check that every model has a pool, and every pool known models; start nothing.

        Raises:
            StartError: one has not.
        """
        _check_models(config, [spec.name for spec in specs])
        _check_folders(config, specs)
        self.pools: Sequence[Pool] = [local.pool for local in config.fleet.pools]
        self._config = config
        self._specs = specs
        self._registry = registry
        self._clock = clock
        self._crews = {
            # Its pauses are of this process: a wall clock that is put back must not prolong them.
            local.pool.name: Crew(
                local.pool,
                functools.partial(self._new_worker, local),
                time.monotonic,
                drain_s=config.fleet.times.drain_s,
            )
            for local in config.fleet.pools
            if not local.pool.is_fixed
        }

    async def open(self) -> None:
        """Return once every pool has its least number of workers up.

        Raises:
            StartError: one has not, and the reason; `close` ends the others.
        """
        await asyncio.gather(*(self._open(crew) for crew in self._crews.values()))

    async def close(self) -> None:
        """Stop every worker."""
        await asyncio.gather(*(crew.close() for crew in self._crews.values()))

    async def size(self, pool: Pool) -> PoolSize:
        """See the port."""
        crew = self._crews.get(pool.name)
        return FIXED_SIZE if crew is None else crew.size()

    async def resize(self, pool: Pool, desired: int) -> None:
        """See the port."""
        crew = self._crews.get(pool.name)
        if crew is not None:
            crew.resize(desired)

    def staying(self, pool: str, worker_id: str) -> CrewMember | None:
        """The worker of the pool, if it is up and not about to leave."""
        crew = self._crews.get(pool)
        return None if crew is None else crew.staying(worker_id)

    def when_cut(self, tell: Callable[[str], None]) -> None:
        """Have it told of workers that are stopped with what they still work on, by their ids."""
        for crew in self._crews.values():
            crew.on_cut = tell

    def troubles(self) -> Mapping[str, str]:
        """Why the last worker of a pool failed, of those where none has come up since."""
        return {name: crew.trouble for name, crew in self._crews.items() if crew.trouble}

    async def _open(self, crew: Crew) -> None:
        try:
            await crew.open()
        except WorkerError as error:
            where = f"pool {crew.pool.name!r}: " if len(self.pools) > 1 else ""
            raise StartError(f"{where}{error}") from error

    def _new_worker(self, local: LocalPool, worker_id: str, place: int) -> LocalWorker:
        config = self._config
        setup = WorkerSetup(
            id=worker_id,
            pool=local.pool,
            models=tuple(spec.name for spec in self._specs if _starts_with(local, spec.name)),
            memory_budget_bytes=local.memory_budget_mb and local.memory_budget_mb * MB,
            model_parameters=local.model_parameters,
            model_repositories=_repositories(config),
            venv=config.worker_venv,
            state_dir=config.data_dir / "worker" / f"{local.pool.name}-{place}",
            times=config.fleet.times,
        )
        return LocalWorker(setup, self._registry, self._clock)


def _repositories(config: ServerConfig) -> tuple[Path, ...]:
    own = (config.models_dir,) if config.models_dir is not None else ()
    return (*own, BUNDLED_MODELS)


def _starts_with(local: LocalPool, model: str) -> bool:
    if local.models_at_start is None:
        return local.pool.serves(model)
    return model in local.models_at_start


def _check_models(config: ServerConfig, served: Sequence[str]) -> None:
    pools = [local.pool for local in config.fleet.pools]
    for pool in pools:
        for model in sorted(pool.models):
            if model not in served:
                raise StartError(
                    f"pool {pool.name!r}: models: {model!r} is not served here; add it to --models"
                )
    for local in config.fleet.pools:
        named = {
            "slots": local.pool.slots,
            "model_parameters": local.model_parameters,
            "models_at_start": local.models_at_start or (),
            "warm": [window.model for window in local.pool.warm],
        }
        for key, models in named.items():
            for model in sorted(models):
                if model not in served:
                    where = f"pool {local.pool.name!r}: {key}"
                    raise StartError(f"{where}: {model!r} is not served here")
    for model in served:
        if not any(pool.serves(model) for pool in pools):
            raise StartError(f"no pool serves {model!r}: add it to the models of one")


def _check_folders(config: ServerConfig, specs: Sequence[ModelSpec]) -> None:
    """Tell what engines would only be waited for with: another version, a backend without code.

    Raises:
        StartError: a model's folder does not go with what the catalogue says of it.
    """
    started_here = [local.pool for local in config.fleet.pools if not local.pool.is_fixed]
    for spec in specs:
        if not any(pool.serves(spec.name) for pool in started_here):
            continue
        folders = [repository / spec.name for repository in _repositories(config)]
        # A folder that is missing or cannot be read is the worker's to tell of.
        with contextlib.suppress(OSError):
            folder = next((each for each in folders if (each / "config.pbtxt").is_file()), None)
            if folder is not None:
                _check_folder(folder, spec)


def _check_folder(folder: Path, spec: ModelSpec) -> None:
    text = (folder / "config.pbtxt").read_text(encoding="utf-8", errors="replace")
    latest = latest_version(folder)
    is_kept = "version_policy" in text and (folder / spec.version).is_dir()
    if spec.version != latest and not is_kept:
        raise StartError(
            f"model {spec.name!r}: its {MODEL_FILE} says version {spec.version!r}, but Triton "
            f"takes {latest!r}, the highest number among the folders of {folder}; give both the "
            "same"
        )
    code = folder / spec.version / "model.py"
    if PYTHON_BACKEND.search(text) and not code.is_file():
        raise StartError(f"model {spec.name!r}: there is no {code}")
