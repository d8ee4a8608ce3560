"""What a caller may say about the Triton it wants."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from synapse_worker.backoff import RestartPolicy
from synapse_worker.errors import WorkerError

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
VENV = ".venv-worker"
BUNDLED_MODELS = Path(__file__).resolve().parents[1] / "triton" / "models"


def default_venv() -> Path:
    """The worker environment of this folder; where it has none, that beside the running Python's.

    So a command finds it that is called by its path from another folder.
    """
    beside = Path(sys.prefix).parent / VENV
    return beside if beside.exists() and not Path(VENV).exists() else Path(VENV)


def default_state_dir() -> Path:
    """A per-user cache folder: links, compiled Python and logs; safe to delete at any time.

    Each start of Triton lays out again what it needs of it.
    """
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "synapse" / "worker"


def check_model_name(name: str) -> None:
    """Refuse one that is not plain: it becomes a path and a command line argument."""
    if not MODEL_NAME.fullmatch(name):
        raise WorkerError(
            f"{name!r} is not a model name", "Use letters, digits, dot, dash, underscore"
        )


@dataclass(frozen=True)
class WorkerConfig:
    """One Triton process: which models, from where, on which ports.

    `venv` is the worker's virtual environment; None runs the Triton of an NVIDIA container.
    A port of 0 is chosen at the first start and kept over restarts. `model_parameters` overlays
    the `parameters` of a model's config.pbtxt, by model name. `model_folder` is for who wants more
    models later: Triton's repository, in which its owner puts `models` and whatever follows.
    """

    models: tuple[str, ...]
    venv: Path | None
    model_repositories: tuple[Path, ...] = (BUNDLED_MODELS,)
    state_dir: Path = field(default_factory=default_state_dir)
    model_folder: Path | None = None
    log_file: Path | None = None
    host: str = "127.0.0.1"
    http_port: int = 0
    grpc_port: int = 0
    metrics_port: int = 0
    ready_timeout_s: float = 120.0
    stop_timeout_s: float = 15.0
    health_interval_s: float = 0.5
    hang_timeout_s: float = 60.0
    restart: RestartPolicy = field(default_factory=RestartPolicy)
    model_parameters: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    extra_arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse names that are not plain."""
        for model in self.models:
            check_model_name(model)

    def model_dir(self, model: str) -> Path:
        """The first repository that has the model wins."""
        for repository in self.model_repositories:
            if (repository / model / "config.pbtxt").is_file():
                return (repository / model).resolve()
        found = (r.glob("*/config.pbtxt") for r in self.model_repositories)
        known = sorted({path.parent.name for paths in found for path in paths})
        raise WorkerError(
            f"There is no model {model!r} in {', '.join(map(str, self.model_repositories))}",
            f"Choose from: {', '.join(known) or 'none, the repository is empty'}",
        )
