"""Triton's model repository where models come and go: a folder of links that only one agent has."""

import contextlib
import fcntl
import os
import secrets
import shutil
from pathlib import Path

from synapse_worker.errors import WorkerError
from synapse_worker.staging import safe_folder, safe_path

PREFIX = "models-"
LOCK = "lock"


class ModelFolder:
    """Made for one agent; a lock says that it lives, and those of the dead are swept up."""

    def __init__(self, state_dir: Path) -> None:
        """It is made by `open`."""
        self._state_dir = state_dir
        self._root = safe_path(state_dir) / "agents" / f"{PREFIX}{secrets.token_hex(6)}"
        self._lock = -1
        self._links: dict[str, Path] = {}

    @property
    def path(self) -> Path:
        """For `--model-repository`."""
        return self._root / "models"

    def open(self) -> None:
        """Make it, empty.

        Raises:
            WorkerError: nothing can be written there.
        """
        try:
            self._make()
        except OSError as error:
            raise self._cannot_write(error) from error

    def mend(self) -> None:
        """Put back what was deleted from outside.

        Raises:
            WorkerError: nothing can be written there.
        """
        try:
            if not (self._root / LOCK).exists() or not self.path.is_dir():
                shutil.rmtree(self._root, ignore_errors=True)
                if self._lock >= 0:
                    os.close(self._lock)
                    self._lock = -1
                self._make()
            for model, source in self._links.items():
                if not (self.path / model).is_symlink():
                    (self.path / model).symlink_to(source)
        except OSError as error:
            raise self._cannot_write(error) from error

    def _make(self) -> None:
        safe_folder(self._state_dir)
        self._root.parent.mkdir(exist_ok=True)
        _sweep(self._root.parent)
        # Locked before it has the name under which it would be swept up.
        draft = self._root.with_name(f".{self._root.name}")
        shutil.rmtree(draft, ignore_errors=True)
        (draft / "models").mkdir(parents=True)
        self._lock = os.open(draft / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        draft.rename(self._root)

    def _cannot_write(self, error: OSError) -> WorkerError:
        return WorkerError(
            f"Cannot write {self._state_dir}: {error.strerror or error}",
            "Free some space, or name another folder (--state-dir)",
        )

    def put(self, model: str, source: Path) -> None:
        """Have it in there, in the place of another version.

        Raises:
            WorkerError: nothing can be written there.
        """
        self.remove(model)
        self.mend()
        try:
            (self.path / model).symlink_to(source)
        except OSError as error:
            raise self._cannot_write(error) from error
        self._links[model] = source

    def remove(self, model: str) -> None:
        """Have it no longer in there.

        Raises:
            WorkerError: nothing can be written there.
        """
        self._links.pop(model, None)
        try:
            (self.path / model).unlink(missing_ok=True)
        except OSError as error:
            raise self._cannot_write(error) from error

    def close(self) -> None:
        """Delete it."""
        if self._lock >= 0:
            shutil.rmtree(self._root, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1
            self._links.clear()


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # its owner lives, or another sweeps it up just now
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
