"""A folder of links in the shape Triton wants, so that nothing is written into site-packages.

Triton needs the stub of the running Python beside its Python backend library, reads models from
one folder per repository, and hands both paths to `bash -c` unquoted: hence links, and hence a
folder whose name holds nothing a shell would interpret.
"""

import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from synapse_worker.config import WorkerConfig
from synapse_worker.errors import WorkerError
from synapse_worker.runtime import TritonRuntime

SHELL_SAFE = re.compile(r"[A-Za-z0-9_./-]+")
PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Stage:
    """Where Triton finds its backends, its models, and the Python package of those models."""

    root: Path
    model_folder: Path | None = None

    @property
    def backends(self) -> Path:
        """For `--backend-directory`."""
        return self.root / "backends"

    @property
    def models(self) -> Path:
        """For `--model-repository`: exactly the models asked for."""
        return self.model_folder or self.root / "models"

    @property
    def python_path(self) -> Path:
        """Holds a link to this package, so that a model's `model.py` can import its backend."""
        return self.root / "python"


def build_stage(config: WorkerConfig, runtime: TritonRuntime | None) -> Stage:
    """Make the folder, or find the one that an earlier start made, and mend what it lacks."""
    links = _links(config, runtime)
    digest = hashlib.sha256(repr(sorted(links.items())).encode()).hexdigest()[:16]
    try:
        root = _publish(safe_folder(config.state_dir) / f"stage-{digest}", links)
        return Stage(root, config.model_folder)
    except OSError as error:
        raise WorkerError(
            f"Cannot write {config.state_dir}: {error.strerror or error}",
            "Free some space, or name another folder (--state-dir)",
        ) from error


def _links(config: WorkerConfig, runtime: TritonRuntime | None) -> dict[str, Path]:
    links = {"python/synapse_worker": PACKAGE}
    if config.model_folder is None:
        links |= {f"models/{model}": config.model_dir(model) for model in config.models}
    if runtime is not None:
        for name in ("libtriton_python.so", "triton_python_backend_utils.py"):
            links[f"backends/python/{name}"] = runtime.python_backend / name
        links["backends/python/triton_python_backend_stub"] = runtime.stub
        # The stub's Python is isolated and ignores PYTHONPATH, but this folder is on its path.
        links["backends/python/synapse_worker"] = PACKAGE
    return links


def safe_path(wanted: Path) -> Path:
    """The folder, or one of this user's whose name no shell would misread."""
    wanted = wanted.absolute()
    if SHELL_SAFE.fullmatch(str(wanted)):
        return wanted
    return Path(tempfile.gettempdir()) / f"synapse-worker-{os.getuid()}"


def safe_folder(wanted: Path) -> Path:
    """The same, made if it is not there."""
    path = safe_path(wanted)
    if path == wanted.absolute():
        path.mkdir(parents=True, exist_ok=True)
        return path
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.getuid():  # someone else's: its links would be theirs to move
        raise WorkerError(f"{path} belongs to another user", "Choose another state folder")
    return path


def _publish(target: Path, links: Mapping[str, Path]) -> Path:
    """Write aside, then rename: a half-made stage is never seen, and two starters do not clash."""
    if target.is_dir():
        _mend(target, links)
        return target
    draft = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
    for name, source in links.items():
        link = draft / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(source)
    try:
        draft.rename(target)
    except OSError:
        shutil.rmtree(draft, ignore_errors=True)
        if not target.is_dir():
            raise
    return target


def _mend(target: Path, links: Mapping[str, Path]) -> None:
    """Put back what a cleaner of old files took."""
    for name, source in links.items():
        link = target / name
        if link.is_symlink() and link.readlink() == source:
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        draft = link.with_name(f".{link.name}-{secrets.token_hex(4)}")
        draft.symlink_to(source)
        draft.replace(link)
