"""A Triton that only remembers what it was told, for tests of what an agent tells it."""

from dataclasses import replace
from pathlib import Path

from synapse_worker.agent.config import AgentConfig
from synapse_worker.agent.folder import ModelFolder
from synapse_worker.agent.models import Models
from synapse_worker.agent.readings import ModelReading, Readings
from synapse_worker.agent.shelf import Shelf
from synapse_worker.agent.triton_models import TritonModels
from synapse_worker.config import WorkerConfig
from synapse_worker.errors import WorkerError

MIB = 1 << 20


class FakeTriton(TritonModels):
    """Loads what is not in `broken`; `calls` is the history."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.loaded: set[str] = set()
        self.broken: set[str] = set()
        self.busy: set[str] = set()
        self.is_running = True

    @property
    def is_up(self) -> bool:
        return self.is_running

    async def load(self, model: str) -> None:
        self.calls.append(f"load {model}")
        if model in self.broken:
            raise WorkerError(f"Triton could not load {model}: it is broken")
        self.loaded.add(model)

    async def unload(self, model: str) -> None:
        self.calls.append(f"unload {model}")
        self.loaded.discard(model)

    async def wait_unloaded(self, model: str) -> None:
        if model in self.loaded:
            await self.unload(model)

    async def readings(self) -> Readings | None:
        return Readings({name: ModelReading(waiting=1) for name in self.busy})


def model_folder(repository: Path, name: str, version: str = "1") -> Path:
    """A model's folder with nothing in it that anybody reads."""
    folder = repository / name
    (folder / version).mkdir(parents=True)
    (folder / "config.pbtxt").write_text(f'name: "{name}"')
    return folder


class World:
    """The models of a worker whose Triton is a fake; each takes 10 MiB unless `sizes` says else."""

    def __init__(self, root: Path, names: str = "abc", **settings: object) -> None:
        for name in names:
            model_folder(root / "repository", name)
        worker = WorkerConfig(
            models=(),
            venv=None,
            model_repositories=(root / "repository",),
            state_dir=root / "state",
        )
        self.config = replace(AgentConfig(worker, drain_timeout_s=0.2), **settings)  # type: ignore[arg-type]
        self.triton = FakeTriton()
        self.sizes: dict[str, int] = {}
        self.changes = 0
        self.folder = ModelFolder(worker.state_dir)
        self.folder.open()
        self.models = Models(
            self.config,
            Shelf(worker, None),
            self.folder,
            self.triton,
            self.bytes_of,
            self._changed,
        )

    def _changed(self) -> None:
        self.changes += 1

    def bytes_of(self, name: str) -> int:
        """What a model takes."""
        return self.sizes.get(name, 10 * MIB)

    def use(self, name: str, at: float) -> None:
        """Note that a model was used."""
        next(known for known in self.models.all() if known.name == name).last_used_at = at
