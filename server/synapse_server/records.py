"""What one machine writes down: jobs, their payloads, files, what was measured, who may call."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Self

from synapse.adapters.local.access_database import AccessDatabase
from synapse.adapters.local.blobs import FolderBlobStore
from synapse.adapters.local.database import Database
from synapse.adapters.local.job_store import SqliteJobStore
from synapse.adapters.local.keys import SqliteKeyStore
from synapse.adapters.local.meter import SqliteMeter
from synapse.adapters.local.profiles import SqliteProfileStore
from synapse.adapters.local.registry import LocalRegistry
from synapse.adapters.local.usage import SqliteUsageStore
from synapse.application.response_cache import MAX_AGE_S
from synapse.domain.model import ModelSpec
from synapse.domain.pool import Pool
from synapse_server.config import ServerConfig
from synapse_server.file_parts import FileParts

ACCESS = "access.db"
"""Keys and tenants, in the data folder."""

ORPHANED_AFTER_S = 2 * 86_400.0
"""Beyond retention: twice the longest timeout of a job."""


class Records:
    """The stores over one data folder; `open` is how to get them."""

    def __init__(
        self,
        config: ServerConfig,
        specs: Sequence[ModelSpec],
        pools: Sequence[Pool],
        database: Database,
        access: AccessDatabase,
        profiles: SqliteProfileStore,
        meter: SqliteMeter,
    ) -> None:
        """Made by `open`."""
        self._retention_s = config.retention_s
        self.database = database
        self.access = access
        self.keys = SqliteKeyStore(access)
        self.profiles = profiles
        self.meter = meter
        self.jobs = SqliteJobStore(database, time.time, retention_s=config.retention_s)
        self.usage = SqliteUsageStore(database)
        self.blobs = FolderBlobStore(config.data_dir / "blobs")
        # A folder of its own: kept answers are forgotten by age, what belongs to a job is not.
        self.kept = FolderBlobStore(config.data_dir / "cache")
        self.files = FileParts(database, config.data_dir / "files")
        self._on_disk = (database, self.blobs, self.kept, self.files.blobs)
        of_model = {spec.name: [p for p in pools if p.serves(spec.name)] for spec in specs}
        self.registry = LocalRegistry(specs, of_model, database)

    @classmethod
    async def open(
        cls,
        config: ServerConfig,
        specs: Sequence[ModelSpec],
        pools: Sequence[Pool],
        database: Database,
        stack: contextlib.AsyncExitStack,
    ) -> Self:
        """Everything opened and ready; `stack` closes it, but for the `database`.

        Raises:
            StorageError: something cannot be opened.
        """
        access = AccessDatabase.open(config.data_dir / ACCESS)
        stack.push_async_callback(access.close)
        profiles = await SqliteProfileStore.open(database)
        meter = await SqliteMeter.open(database)
        stack.push_async_callback(meter.aclose)
        records = cls(config, specs, pools, database, access, profiles, meter)
        stack.push_async_callback(records.jobs.aclose)
        stack.push_async_callback(records.usage.aclose)
        await records.files.recover()
        await records.registry.load()
        return records

    def last_trouble(self) -> str:
        """Why what was last to be written could not be; empty if nothing is the matter."""
        return "; ".join(filter(None, (store.last_trouble() for store in self._on_disk)))

    async def try_again(self) -> None:
        """Write something wherever the last write failed.

        Raises:
            Unavailable: it fails still.
        """
        for store in self._on_disk:
            await store.try_again()

    async def save(self) -> None:
        """Write down what was measured."""
        await self.registry.save(time.time())

    async def release(self) -> None:
        """Put back what was running, and write down what was measured: the last thing done."""
        await self.jobs.release(time.time())
        await self.save()

    async def purge(self, batches_since: float) -> None:
        """Forget jobs, payloads, answers and files whose time has passed.

        Not what file batches have written that are still open, the oldest since then: one that was
        left by a server that stood still for long could never end without.
        """

        async def delete(keys: Sequence[str]) -> None:
            for key in keys:
                await self.blobs.delete(key)

        await self.jobs.purge(delete)
        # What no record names any more: the results of refused late duplicates.
        orphaned_before = time.time() - self._retention_s - ORPHANED_AFTER_S
        await self.blobs.prune(min(orphaned_before, batches_since))
        await self.kept.prune(time.time() - MAX_AGE_S)
        await self.files.purge()
