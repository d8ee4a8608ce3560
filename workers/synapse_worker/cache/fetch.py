"""From a store to a published model: read the manifest, make room, fetch, check, publish."""

import logging
import os
import shutil
import threading
import time
from collections.abc import Callable

from synapse_worker.cache.config import CacheConfig, TransferConfig
from synapse_worker.cache.draft import Draft
from synapse_worker.cache.entries import Progress
from synapse_worker.cache.leases import try_lock
from synapse_worker.cache.manifest import LATEST, MANIFEST, Manifest, checked_name
from synapse_worker.cache.room import open_draft
from synapse_worker.cache.shelf import Shelf
from synapse_worker.cache.stores import Changed, Missing, Store, Unreachable
from synapse_worker.cache.transfer import Corrupt, Stopped, Transfer
from synapse_worker.errors import UnknownModel, WorkerError

LOCK_POLL_S = 0.05
MAX_CHANGES = 3
"""How often a model may change while it is fetched: somebody is publishing it just then."""

logger = logging.getLogger(__name__)


def latest_version(store: Store, name: str, config: TransferConfig, stop: threading.Event) -> str:
    """What the store names as the model's latest version.

    Raises:
        Missing, Unreachable, WorkerError, Stopped.
    """
    path = f"{name}/{LATEST}"
    raw = read(store, path, config, stop)
    try:
        return checked_name(raw.decode().strip())
    except ValueError as error:
        raise WorkerError(f"{path} in the model store: {error}", "Publish it again") from error


def read(store: Store, path: str, config: TransferConfig, stop: threading.Event) -> bytes:
    """A small file whole, as often as it takes.

    Raises:
        Missing, Unreachable, WorkerError, Stopped.
    """
    for failures in range(1, config.attempts):
        try:
            return store.read(path)
        except Unreachable as error:
            if stop.wait(max(error.retry_after_s, config.delay_s(failures))):
                raise Stopped from error
    return store.read(path)


class Fetch:
    """One model on its way into a cache. `run` blocks."""

    def __init__(
        self,
        shelf: Shelf,
        store: Store,
        config: CacheConfig,
        stop: threading.Event,
        on_progress: Callable[[Progress], None],
    ) -> None:
        """Setting `stop` ends it early; what has come is kept for the next one."""
        self._shelf = shelf
        self._store = store
        self._config = config
        self._stop = stop
        self._on_progress = on_progress

    def run(self, name: str, version: str) -> None:
        """Return when the version is published; one process does it, the others wait for that.

        Raises:
            Stopped, WorkerError.
        """
        lock = self._wait_for_lock(name, version)
        try:
            if not self._is_here(name, version):
                self._fetch(name, version)
        finally:
            os.close(lock)

    def _wait_for_lock(self, name: str, version: str) -> int:
        path = self._shelf.download_lock(name, version)
        while (lock := try_lock(path)) is None:
            if self._stop.wait(LOCK_POLL_S):
                raise Stopped
        return lock

    def _is_here(self, name: str, version: str) -> bool:
        folder = self._shelf.model(name, version)
        try:
            self._shelf.manifest(folder)
        except (FileNotFoundError, WorkerError):  # not there, or damaged by hand
            self._shelf.discard(folder)
        return folder.is_dir()

    def _fetch(self, name: str, version: str) -> None:
        for changes in range(1, MAX_CHANGES + 1):
            try:
                return self._attempt(self._manifest(name, version))
            except Changed as error:
                logger.warning("model changed while it was fetched", extra={"cause": str(error)})
                if self._stop.wait(self._config.transfer.delay_s(changes)):
                    raise Stopped from error
        raise WorkerError(
            f"{name} {version} changed in the store while it was fetched, {MAX_CHANGES} times",
            "Publish a changed model as a new version",
        )

    def _manifest(self, name: str, version: str) -> Manifest:
        path = f"{name}/{version}/{MANIFEST}"
        try:
            raw = read(self._store, path, self._config.transfer, self._stop)
        except Missing as error:
            raise UnknownModel(f"The model store has no {name} {version}", "Publish it") from error
        except Unreachable as error:
            raise unreachable(self._config, error) from error
        manifest = Manifest.parse(raw, path)
        if (manifest.name, manifest.version) != (name, version):
            raise WorkerError(f"{path} is of another model", "Publish it again")
        return manifest

    def _attempt(self, manifest: Manifest) -> None:
        draft = open_draft(self._shelf, self._config, manifest)
        try:
            self._transfer(draft)
            draft.seal()
            self._shelf.publish(manifest.name, manifest.version, draft.files)
        except Corrupt:
            # Nothing of it is to be trusted: the next try begins with nothing.
            shutil.rmtree(self._shelf.draft(manifest.name, manifest.version), ignore_errors=True)
            raise
        except OSError as error:
            raise WorkerError(
                f"{manifest.name} cannot be written to {self._shelf.root}: {error.strerror}",
                "Look after that disk",
            ) from error
        finally:
            draft.close()

    def _transfer(self, draft: Draft) -> None:
        manifest, started = draft.manifest, time.monotonic()
        total = manifest.total_bytes
        prefix = f"{manifest.name}/{manifest.version}/"
        transfer = Transfer(self._store, prefix, draft, self._config.transfer, self._stop)
        transfer.run(lambda there: self._on_progress(Progress(there, total)))
        logger.info(
            "model fetched",
            extra={
                "model": manifest.name,
                "version": manifest.version,
                "bytes": total,
                "seconds": round(time.monotonic() - started, 3),
            },
        )


def unreachable(config: CacheConfig, error: Unreachable) -> WorkerError:
    """As a cause and a remedy."""
    return WorkerError(
        f"The model store {config.source} cannot be reached: {error}", "Try again when it can"
    )
