"""The cache's folder: where what lies, who uses it, and how it comes and goes in one step.

    models/<name>/<version>/     published: the files and the manifest; complete, never written to
    drafts/<name>/<version>/     being fetched, or left behind by a process that died
    leases/<name>/<version>      a lock, shared by who uses the model; touched when it is used
    downloads/<name>/<version>   a lock, held by the one who fetches it
    trash/                       on its way out
    lock                         held for a moment by who makes room or looks who uses what

Locks are the kernel's: those of a process that was killed are free.
"""

import contextlib
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from synapse_worker.cache.draft import JOURNAL, sync
from synapse_worker.cache.eviction import Held
from synapse_worker.cache.leases import Lease, is_locked, lock_exclusive, lock_shared, try_lock
from synapse_worker.cache.manifest import MANIFEST, Manifest
from synapse_worker.errors import WorkerError

MODELS, DRAFTS, LEASES, DOWNLOADS, TRASH = "models", "drafts", "leases", "downloads", "trash"

LockOf = Callable[[str, str], Path]


@dataclass(frozen=True, slots=True)
class Item:
    """Something on the shelf: a model, or the draft of one."""

    folder: Path
    manifest: Manifest
    last_used_at: float
    in_use: bool

    @property
    def is_draft(self) -> bool:
        """Whether it is not whole yet."""
        return self.folder.parent.parent.name == DRAFTS

    def held(self, pinned: frozenset[str]) -> Held:
        """As the policy of eviction sees it; a draft takes its full size from the start."""
        return Held(
            key=str(self.folder),
            size_bytes=self.manifest.total_bytes,
            last_used_at=self.last_used_at,
            in_use=self.in_use,
            pinned=self.manifest.name in pinned,
        )


class Shelf:
    """The folder. Its methods block."""

    def __init__(self, root: Path) -> None:
        """Nothing is read or written yet."""
        self.root = root.absolute()
        self._manifests: dict[Path, Manifest] = {}

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Nobody else makes room or looks who uses what meanwhile."""
        descriptor = lock_exclusive(self.root / "lock")
        try:
            yield
        finally:
            os.close(descriptor)

    def model(self, name: str, version: str) -> Path:
        """Where this version is, or would be, published."""
        return self.root / MODELS / name / version

    def draft(self, name: str, version: str) -> Path:
        """Where this version is, or would be, fetched to."""
        return self.root / DRAFTS / name / version

    def download_lock(self, name: str, version: str) -> Path:
        """Held by the one who fetches it."""
        return self.root / DOWNLOADS / name / version

    def hold(self, name: str, version: str) -> int:
        """Keep this version from being evicted, be it here already or not: a lock to be closed."""
        return lock_shared(self._lease(name, version))

    def lease(self, name: str, version: str, lock: int) -> Lease | None:
        """The published version, marked as used; None if it is not here. Takes over the lock."""
        folder = self.model(name, version)
        try:
            memory_bytes = self.manifest(folder).memory_bytes if folder.is_dir() else None
        except (OSError, WorkerError):  # damaged by hand
            memory_bytes = None
        return None if memory_bytes is None else Lease(name, version, folder, memory_bytes, lock)

    def manifest(self, folder: Path) -> Manifest:
        """Of a model or a draft. A published one never changes and is read once."""
        if folder not in self._manifests:
            path = folder / MANIFEST
            found = Manifest.parse(path.read_bytes(), str(path))
            if not folder.is_relative_to(self.root / MODELS):
                return found
            self._manifests[folder] = found
        return self._manifests[folder]

    def published(self, name: str = "*") -> list[Item]:
        """The models, by name and version. Under the guard."""
        return self._items(MODELS, name, self._lease)

    def drafts(self, name: str = "*") -> list[Item]:
        """What is being fetched, or was once. Under the guard."""
        return self._items(DRAFTS, name, self.download_lock)

    def publish(self, name: str, version: str, files: Path) -> None:
        """A complete folder becomes the model, at once and for good; the draft around it goes."""
        target = self.model(name, version)
        target.parent.mkdir(parents=True, exist_ok=True)
        files.rename(target)
        for folder in (target.parent, target.parent.parent):
            sync(folder)
        shutil.rmtree(self.draft(name, version), ignore_errors=True)

    def evict(self, item: Item) -> int:
        """Delete it unless somebody uses it by now; the bytes freed. Under the guard."""
        name, version = item.manifest.name, item.manifest.version
        place = self.download_lock if item.is_draft else self._lease
        lock = try_lock(place(name, version))
        if lock is None:
            return 0
        try:
            self.discard(item.folder)
        finally:
            os.close(lock)
        return item.manifest.total_bytes

    def discard(self, folder: Path) -> None:
        """A model or draft is gone at once, and then its bytes. Whoever asks has its lock."""
        self._manifests.pop(folder, None)
        if not folder.exists():
            return
        trash = self.root / TRASH / secrets.token_hex(8)
        trash.parent.mkdir(parents=True, exist_ok=True)
        folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)

    def empty_trash(self) -> None:
        """What a process that was killed while deleting has left. Under the guard."""
        shutil.rmtree(self.root / TRASH, ignore_errors=True)

    def _lease(self, name: str, version: str) -> Path:
        return self.root / LEASES / name / version

    def _items(self, kind: str, name: str, lock: LockOf) -> list[Item]:
        found = []
        for folder in sorted((self.root / kind).glob(f"{name}/*")):
            lock_file = lock(folder.parent.name, folder.name)
            try:
                manifest = self.manifest(folder)
                used_at = _changed_at(folder / JOURNAL if kind == DRAFTS else lock_file, folder)
                found.append(Item(folder, manifest, used_at, is_locked(lock_file)))
            except (OSError, WorkerError):  # damaged, or published or thrown away just now
                continue
        return found


def _changed_at(path: Path, otherwise: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return otherwise.stat().st_mtime
