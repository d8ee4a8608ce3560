"""Wiring of the one-machine target: the one place where its adapters meet the use cases."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from synapse.adapters.catalogue import CatalogueError, load_catalogue
from synapse.adapters.local.batch_starter import InProcessBatchStarter
from synapse.adapters.local.blobs import FolderBlobStore
from synapse.adapters.local.database import Database
from synapse.adapters.local.failures import StorageError
from synapse.adapters.local.job_store import SqliteJobStore
from synapse.adapters.local.queue import LocalJobQueue
from synapse.adapters.local.registry import LocalRegistry
from synapse.adapters.local.slots import SlotLedger
from synapse.adapters.telemetry.exposition import exposition
from synapse.adapters.telemetry.prometheus import PrometheusTelemetry
from synapse.adapters.triton.engine import TritonEngine
from synapse.api.app import create_api
from synapse.api.openai.lines import OpenAiLines
from synapse.api.resolver import Api
from synapse.api.services import Services
from synapse.application.batcher import Batcher
from synapse.application.direct import DirectLane
from synapse.application.dispatch import Dispatcher
from synapse.application.give_back import GiveBack
from synapse.application.line_tools import LineTools
from synapse.application.ping import Pinger
from synapse.application.response_cache import MAX_AGE_S, ResponseCache
from synapse.application.results import Results
from synapse.application.run_batch import BatchRunner
from synapse.application.submit import Submitter, message_of
from synapse.application.sweep import Sweeper
from synapse.domain.admission import Load
from synapse.domain.job import JobId, Priority
from synapse.domain.model import ModelSpec, Task
from synapse.domain.pool import Pool
from synapse.domain.retry import RetryPolicy
from synapse.domain.sweep import SweepPolicy
from synapse.ids import new_id
from synapse_server.batch_parts import BatchParts
from synapse_server.config import ServerConfig, StartError
from synapse_server.dispatch_loop import DispatchLoop
from synapse_server.file_parts import FileParts
from synapse_server.housekeeping import every
from synapse_server.worker import Engine, running_engine

MAX_WAIT_S = 300.0
"""The longest a request is held by `?wait=`."""

SAVE_EVERY_S = 60.0
PURGE_EVERY_S = 3600.0
ORPHANED_AFTER_S = 2 * 86_400.0
"""Beyond retention: twice the longest timeout of a job."""

REFILL_PAGE = 500
REFILL_PAUSE_S = 0.5
RETRY = RetryPolicy(max_attempts=4, base_s=0.2, max_s=3.0)


class Node:
    """A whole Synapse in one process: `async with Node(config) as node:` serves jobs."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._stack = contextlib.AsyncExitStack()
        self.specs = _specs(config)
        self.api: Api

    async def __aenter__(self) -> Self:
        """Open the records, start the worker, take up what was left, and dispatch.

        Raises:
            StartError: something cannot be opened or started; nothing is left running.
        """
        async with contextlib.AsyncExitStack() as stack:
            try:
                await self._open(stack)
            except StorageError as error:
                raise StartError(str(error)) from error
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Drain, put back what still runs, stop the worker, close the records."""
        await self._stack.aclose()

    async def _open(self, stack: contextlib.AsyncExitStack) -> None:
        config = self._config
        database = Database.open(config.data_dir / "jobs.db")
        stack.push_async_callback(database.close)
        store = SqliteJobStore(database, time.time, retention_s=config.retention_s)
        stack.push_async_callback(store.aclose)
        blobs = FolderBlobStore(config.data_dir / "blobs")
        # A folder of its own: kept answers are forgotten by age, what belongs to a job is not.
        kept = FolderBlobStore(config.data_dir / "cache")
        files = FileParts(database, config.data_dir / "files")
        await files.recover()
        engine = await stack.enter_async_context(running_engine(config))
        triton = TritonEngine()
        stack.push_async_callback(triton.aclose)
        pool = Pool(name="local", accelerator="cpu", endpoint=engine.endpoint)
        registry = LocalRegistry(self.specs, {spec.name: [pool] for spec in self.specs}, database)
        await registry.load()
        queue = LocalJobQueue(config.max_queued)
        parts = _Parts(
            database, store, blobs, kept, files, registry, triton, queue, config.retention_s
        )
        await store.recover(time.time(), SweepPolicy())
        self.api = create_api(parts.services(self.specs))
        parts.start(stack, config, engine, self.specs)


class _Parts:
    """The use cases over the opened adapters."""

    def __init__(
        self,
        database: Database,
        store: SqliteJobStore,
        blobs: FolderBlobStore,
        kept: FolderBlobStore,
        files: FileParts,
        registry: LocalRegistry,
        triton: TritonEngine,
        queue: LocalJobQueue,
        retention_s: float,
    ) -> None:
        self._retention_s = retention_s
        self._store, self._blobs, self._registry, self._queue = store, blobs, registry, queue
        self._kept, self._files = kept, files
        clock, self._telemetry = time.time, PrometheusTelemetry()
        self._runner = BatchRunner(store, blobs, registry, triton, self._telemetry, clock)
        self._runner.item_left = lambda batch: self._starter.release(batch.id)
        give_back = GiveBack(store, queue, self._telemetry, clock)
        self._batcher = Batcher(
            self._runner,
            give_back,
            RETRY,
            asyncio.sleep,
            random.random,
            moved=lambda batch, pool: self._starter.moved(batch.id, pool.name),
        )
        self._slots = SlotLedger(clock)
        self._starter = InProcessBatchStarter(self._batcher.run, self._slots)
        self._dispatcher = Dispatcher(
            store, registry, self._starter, self._telemetry, clock, new_id
        )
        self._direct = DirectLane(registry, triton, self._slots, self._telemetry, clock)
        self._sweeper = Sweeper(store, queue, self._telemetry, clock)
        lines = LineTools(
            store=store,
            queue=queue,
            blobs=blobs,
            file_blobs=files.blobs,
            registry=registry,
            codec=OpenAiLines(registry),
            telemetry=self._telemetry,
            clock=clock,
            new_id=new_id,
            abort=self._abort,
        )
        self._batches = BatchParts(database, files.files, lines)
        self._pinger = Pinger(registry, triton, queue, self._telemetry, clock)

    async def refill(self) -> None:
        """Queue what the last process left, as room is made for it."""
        async for page in self._store.queued(REFILL_PAGE):
            while len(page) > self._queue.room():
                await asyncio.sleep(REFILL_PAUSE_S)
            await self._queue.send([message_of(job) for job in page])

    def services(self, specs: Sequence[ModelSpec]) -> Services:
        """What the routes need."""
        results = Results(self._store, self._blobs, self._telemetry, time.time)
        return Services(
            submitter=Submitter(
                self._store,
                self._queue,
                self._blobs,
                self._registry,
                self._telemetry,
                time.time,
                new_id,
            ),
            direct=self._direct,
            cache=ResponseCache(self._kept, self._registry, time.time),
            results=results,
            registry=self._registry,
            files=self._files.files,
            uploads=self._files.uploads,
            batches=self._batches.batches,
            file_link=self._files.link,
            default_model=next((s.name for s in specs if s.task is Task.GENERATE), specs[0].name),
            max_wait_s=MAX_WAIT_S,
            abort=self._abort,
            metrics=self._metrics,
        )

    def start(
        self,
        stack: contextlib.AsyncExitStack,
        config: ServerConfig,
        engine: Engine,
        specs: Sequence[ModelSpec],
    ) -> None:
        """Start dispatching and housekeeping; `stack` ends them in the right order."""
        loop = DispatchLoop(
            self._queue, self._dispatcher, self._slots, self._batcher, time.time, engine.ready
        )
        stack.push_async_callback(self._release)
        stack.push_async_callback(self._starter.close, config.drain_s)
        for name, work in {
            "refill": self.refill(),
            "dispatch": loop.run(specs),
            "batches": self._batches.driver.run(),
            "sweep": every(config.sweep_every_s, "sweep", self._sweeper.sweep),
            "ping": every(config.ping_every_s, "ping", self._pinger.ping),
            "save": every(SAVE_EVERY_S, "save", self._save),
            "purge": every(PURGE_EVERY_S, "purge", self._purge),
        }.items():
            stack.push_async_callback(_cancel, asyncio.create_task(work, name=name))

    async def _release(self) -> None:
        await self._store.release(time.time())
        await self._save()

    async def _save(self) -> None:
        await self._registry.save(time.time())

    async def _purge(self) -> None:
        async def delete(keys: Sequence[str]) -> None:
            for key in keys:
                await self._blobs.delete(key)

        await self._store.purge(delete)
        # What no record names any more: the results of refused late duplicates.
        await self._blobs.prune(time.time() - self._retention_s - ORPHANED_AFTER_S)
        await self._kept.prune(time.time() - MAX_AGE_S)
        await self._files.purge()
        await self._batches.purge()

    def _abort(self, job_id: JobId) -> None:
        self._queue.discard(job_id)
        self._runner.abort(job_id)

    async def _metrics(self) -> str:
        depth = dict.fromkeys(Priority, 0)
        for spec in await self._registry.models():
            for priority, waiting in (await self._queue.depth(spec.name)).items():
                depth[priority] += waiting
        loads = {
            spec.name: Load.of(self._slots.in_flight(spec.name), spec.slots)
            for spec in await self._registry.models()
        }
        gauges = exposition(await self._registry.health(), depth, loads)
        return self._telemetry.render() + gauges


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _specs(config: ServerConfig) -> tuple[ModelSpec, ...]:
    try:
        catalogue = {spec.name: spec for spec in load_catalogue(config.models_dir)}
        return tuple(catalogue[name] for name in config.models)
    except CatalogueError as error:
        raise StartError(str(error)) from error
    except KeyError as error:
        known = ", ".join(sorted(catalogue))
        raise StartError(f"model {error} is not in the catalogue; choose from: {known}") from error
