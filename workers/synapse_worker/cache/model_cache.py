"""The cache as its users see it."""

import asyncio
import functools
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from synapse_worker.cache import residency, room
from synapse_worker.cache.config import CacheConfig
from synapse_worker.cache.entries import CachedModel, CacheLevel, Progress, ProgressListener
from synapse_worker.cache.fetch import Fetch, latest_version, unreachable
from synapse_worker.cache.leases import Lease
from synapse_worker.cache.manifest import checked_name
from synapse_worker.cache.shelf import Item, Shelf
from synapse_worker.cache.stores import Missing, Store, Unreachable, open_store
from synapse_worker.errors import UnknownModel, WorkerError

MAX_THREADS = 32
"""Calls under way at a time; one that waits for another's download holds one."""

Result = TypeVar("Result")
logger = logging.getLogger(__name__)


class ModelCache:
    """Models of one store on this machine's disk.

    Its methods may be called from one event loop; blocking work runs in threads. Any number of
    processes may have a cache on the same folder: a model is downloaded once, and one that any of
    them uses is not evicted.
    """

    def __init__(self, config: CacheConfig, store: Store | None = None) -> None:
        """Nothing is read or written yet. `store` is the one at `config.source` unless given.

        Raises:
            WorkerError: `config.source` is of no known kind, or needs what is not installed.
        """
        self._config = config
        self._store = store or open_store(config.source, config.transfer)
        self._shelf = Shelf(config.folder)
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="model-cache")

    async def lease(
        self, name: str, version: str | None = None, on_progress: ProgressListener | None = None
    ) -> Lease:
        """The model on this machine's disk, downloaded if it is not there, and kept until released.

        Without a version it is the store's latest; where the store cannot be reached, the one
        used last of those that are here. Calls for the same model share one download, of which the
        one that carries it out is told the progress. Marks it used. When cancelled the download
        stops, and the next one goes on where it was.

        Raises:
            UnknownModel: the store has no such model, or not in that version.
            WorkerError: there is no room for it, or it cannot be fetched whole.
        """
        for given in (name, version):
            if given is not None:
                _check_name(given)
        stop = threading.Event()
        told = _in_this_loop(on_progress)
        call = functools.partial(self._lease, name, version, stop, told)
        under_way = asyncio.get_running_loop().run_in_executor(self._threads, call)
        try:
            return await asyncio.shield(under_way)
        except asyncio.CancelledError:
            stop.set()
            await asyncio.wait([under_way])
            if not under_way.cancelled() and under_way.exception() is None:
                under_way.result().release()
            raise

    async def ensure(
        self, name: str, version: str | None = None, on_progress: ProgressListener | None = None
    ) -> Path:
        """As `lease`, for who only wants it to be there: it may be evicted from now on."""
        with await self.lease(name, version, on_progress) as found:
            return found.path

    async def models(self) -> list[CachedModel]:
        """What is here, by name and version."""
        return await self._in_thread(self._models)

    async def sweep(self) -> int:
        """Delete what has outlived its TTL or the budget, and what dead processes left behind.

        To be called now and then; returns the bytes freed.
        """
        return await self._in_thread(room.sweep, self._shelf, self._config, time.time())

    async def _in_thread(self, call: Callable[..., Result], *arguments: object) -> Result:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, functools.partial(call, *arguments))

    def _lease(
        self,
        name: str,
        version: str | None,
        stop: threading.Event,
        on_progress: Callable[[Progress], None],
    ) -> Lease:
        version = version or self._latest(name, stop)
        lock = self._shelf.hold(name, version)
        try:
            lease = self._shelf.lease(name, version, lock)
            if lease is None:
                Fetch(self._shelf, self._store, self._config, stop, on_progress).run(name, version)
                lease = self._shelf.lease(name, version, lock)
        except BaseException:
            os.close(lock)
            raise
        if lease is None:
            os.close(lock)
            raise WorkerError(f"{name} {version} vanished from {self._shelf.root}", "Try again")
        return lease

    def _latest(self, name: str, stop: threading.Event) -> str:
        here, transfer = self._items(name), self._config.transfer
        if here:  # no need to wait long
            transfer = replace(transfer, attempts=min(transfer.attempts, 2))
        try:
            return latest_version(self._store, name, transfer, stop)
        except Missing as error:
            raise UnknownModel(
                f"The model store {self._config.source} has no {name}",
                "Publish it with `python -m synapse_worker.cache publish`",
            ) from error
        except Unreachable as error:
            if not here:
                raise unreachable(self._config, error) from error
            logger.warning("model store away, what is here is used", extra={"cause": str(error)})
            return max(here, key=lambda item: item.last_used_at).manifest.version

    def _items(self, name: str) -> list[Item]:
        with self._shelf.guard():
            return self._shelf.published(name)

    def _models(self) -> list[CachedModel]:
        return [self._told(item) for item in self._items("*")]

    def _told(self, item: Item) -> CachedModel:
        manifest = item.manifest
        return CachedModel(
            name=manifest.name,
            version=manifest.version,
            level=_level(item.folder),
            size_bytes=manifest.total_bytes,
            memory_bytes=manifest.memory_bytes,
            last_used_at=item.last_used_at,
            in_use=item.in_use,
            pinned=manifest.name in self._config.pinned,
        )


def _level(folder: Path) -> CacheLevel:
    try:
        share = residency.resident_share(folder)
    except FileNotFoundError:  # evicted just now
        return CacheLevel.REMOTE
    is_resident = share >= residency.RESIDENT_SHARE
    return CacheLevel.DRAM_CACHED if is_resident else CacheLevel.NVME_CACHED


def _check_name(name: str) -> None:
    try:
        checked_name(name)
    except ValueError as error:
        raise WorkerError(str(error)) from error


def _in_this_loop(listener: ProgressListener | None) -> Callable[[Progress], None]:
    """The listener, to be called from any thread; each state of things is told once."""
    loop, last = asyncio.get_running_loop(), [Progress(-1, 0)]

    def tell(progress: Progress) -> None:
        if listener is not None and progress != last[0]:
            last[0] = progress
            loop.call_soon_threadsafe(listener, progress)

    return tell
