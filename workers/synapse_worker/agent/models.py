"""The models of one worker: which there are, which are loaded, and who waits for what."""

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

from synapse_worker.agent.config import AgentConfig
from synapse_worker.agent.errors import NotNow
from synapse_worker.agent.folder import ModelFolder
from synapse_worker.agent.known import Doing, Known, Operation
from synapse_worker.agent.loader import Loader
from synapse_worker.agent.readings import Readings
from synapse_worker.agent.shelf import Shelf, Taken
from synapse_worker.agent.triton_models import TritonModels
from synapse_worker.cache import CacheLevel, Progress
from synapse_worker.cache.eviction import expired
from synapse_worker.config import check_model_name
from synapse_worker.errors import UnknownModel

MAX_FAILED = 32
"""Models of which nothing is known but that they could not be had: so many are remembered."""


class Models:
    """Knows what is loaded and what could be. `changed` is called after every change."""

    def __init__(
        self,
        config: AgentConfig,
        shelf: Shelf,
        folder: ModelFolder,
        triton: TritonModels,
        measure: Callable[[str], int],
        changed: Callable[[], None],
    ) -> None:
        """`folder` is Triton's repository; `measure` tells the memory of a loaded model."""
        self._config = config
        self._shelf = shelf
        self._changed = changed
        self._folder = folder
        self._known = {name: Known(name) for name in config.worker.models}
        self._loader = Loader(config, folder, triton, measure, changed)

    def all(self) -> Sequence[Known]:
        """Every model there is something to tell of, by name."""
        return [self._known[name] for name in sorted(self._known)]

    @property
    def loaded(self) -> list[str]:
        """Those that Triton has, or is to have when it is up again."""
        return [known.name for known in self.all() if known.is_loaded]

    async def fetch_first(self) -> None:
        """Have the models to start with in the folder.

        Raises:
            WorkerError: one cannot be had.
        """
        self._folder.open()
        for name in self._config.worker.models:
            known = self._of(name)
            known.taken = await self._fetch(known, None)
            self._folder.put(name, known.taken.path)
            known.doing = Doing.LOADING
            self._changed()

    def note_started(self) -> None:
        """Triton is up with the models to start with."""
        for name in self._config.worker.models:
            known = self._of(name)
            assert known.taken is not None
            self._loader.note_loaded(known, known.taken)

    async def load(
        self,
        name: str,
        version: str | None,
        keep: Collection[str] = (),
        yielding: Collection[str] = (),
    ) -> None:
        """Return once it answers; who asks for what is under way waits for the same.

        Those to `keep` do not make room for it, those `yielding` do even if they are busy.

        Raises:
            WorkerError: it cannot be had or loaded.
        """
        check_model_name(name)
        known = self._of(name)
        while known.operation is not None:
            if known.operation.brings(version):
                return await _outcome(known.operation.task, name)
            await asyncio.wait({known.operation.task})
        if known.is_loaded and version in (None, known.version):
            known.last_used_at = time.time()
            return None
        load = self._load(known, version, keep, yielding)
        return await self._run(known, load, is_load=True, version=version)

    async def unload(self, name: str) -> None:
        """Return once it is out, and what it was asked is answered.

        Raises:
            UnknownModel: there is no such model here.
            WorkerError: it still works; it goes when it is done.
        """
        known = self._known.get(name)
        if known is None:
            raise UnknownModel(f"There is no model {name!r} here", "See the heartbeat")
        while known.operation is not None:
            if not known.operation.is_load:
                return await _outcome(known.operation.task, name)
            await asyncio.wait({known.operation.task})
        if not known.takes_memory:
            return None
        return await self._run(known, self._loader.unload([known]), is_load=False, version=None)

    async def empty(self) -> None:
        """Break off loads, and return once every model is out."""
        await self._cancel_operations()
        await self._loader.unload([known for known in self.all() if known.takes_memory])

    async def close(self) -> None:
        """Let go of all files. Triton must be down."""
        await self._cancel_operations()
        for known in self.all():
            if known.leaving is not None:
                known.leaving.cancel()
            if known.taken is not None:
                known.taken.give_back()
        self._known = {name: Known(name) for name in self._config.worker.models}
        self._folder.close()

    def told_uses(self, used_at: Mapping[str, float]) -> None:
        """Who makes room first goes by this from now on; what is not in it was never asked for."""
        for known in self.all():
            known.asked_at = used_at.get(known.name, 0.0)

    def note(self, readings: Readings, now: float) -> None:
        """Learn from the metrics page what was used."""
        for name, reading in readings.models.items():
            known = self._known.get(name)
            if known is not None and known.is_loaded:
                if reading.is_busy or reading.ended != known.ended:
                    known.last_used_at = now
                known.ended = reading.ended

    def measure(self, bytes_of: Callable[[str], int]) -> None:
        """Note what those take of whose memory nothing was said, as it was measured lately."""
        for known in self.all():
            if known.is_loaded and known.taken is not None and not known.taken.memory_bytes:
                known.memory_bytes = bytes_of(known.name)

    async def look_around(self) -> None:
        """See how near everything is."""
        for name, (version, level) in (await self._shelf.levels()).items():
            known = self._of(name)
            known.level = level
            if not known.takes_memory:
                known.version = version
        self._changed()

    def overdue(self, readings: Readings, now: float) -> list[str]:
        """Loaded models that nobody has used for `unload_after_s`, as far as is known."""
        held = [
            known.held(
                is_busy=readings.is_busy(known.name) or known.operation is not None,
                is_pinned=self._config.is_pinned(known.name),
            )
            for known in self.all()
            if known.is_loaded
        ]
        return [each.key for each in expired(held, now, self._config.unload_after_s)]

    def _of(self, name: str) -> Known:
        return self._known.setdefault(name, Known(name))

    async def _load(
        self,
        known: Known,
        version: str | None,
        keep: Collection[str],
        yielding: Collection[str],
    ) -> None:
        known.error = ""
        try:
            taken = await self._fetch(known, version)
            try:
                await self._loader.load(known, taken, self.all(), keep, yielding)
            except BaseException:
                if known.taken is not taken:
                    taken.give_back()
                raise
        except Exception as error:
            known.error = str(error) or type(error).__name__
            self._forget_failed()
            raise
        finally:
            if known.leaving is None:
                known.doing = Doing.NOTHING
            known.progress = None
            self._changed()

    async def _fetch(self, known: Known, version: str | None) -> Taken:
        def note(progress: Progress) -> None:
            known.progress = progress.share
            if known.doing is not Doing.DOWNLOADING:
                known.doing = Doing.DOWNLOADING
                self._changed()

        taken = await self._shelf.take(known.name, version, note)
        known.progress = None
        if known.doing is Doing.DOWNLOADING:
            known.doing = Doing.LOADING  # or about to: others may have their turn first
            self._changed()
        if not known.is_loaded:
            known.level = CacheLevel.NVME_CACHED
        return taken

    async def _run(
        self,
        known: Known,
        work: Coroutine[Any, Any, None],
        *,
        is_load: bool,
        version: str | None,
    ) -> None:
        """As a task of its own: one who no longer waits does not stop it for the others."""
        task = asyncio.create_task(work, name=f"{'load' if is_load else 'unload'}-{known.name}")
        known.operation = Operation(is_load, version, task)

        def ended(task: asyncio.Task[None]) -> None:
            known.operation = None
            if not task.cancelled():
                task.exception()  # told to those who wait, and by the heartbeat

        task.add_done_callback(ended)
        await _outcome(task, known.name)

    async def _cancel_operations(self) -> None:
        tasks = {known.operation.task for known in self.all() if known.operation is not None}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _forget_failed(self) -> None:
        lost = [k for k in self.all() if k.error and k.level is CacheLevel.REMOTE]
        for known in lost[MAX_FAILED:]:
            if known.operation is None:
                del self._known[known.name]


async def _outcome(task: asyncio.Task[None], name: str) -> None:
    """What becomes of it, for one of those who wait; it goes on without any of them."""
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        waiter = asyncio.current_task()
        if not task.cancelled() or (waiter is not None and waiter.cancelling()):
            raise
        raise NotNow(
            f"What was under way with {name} was broken off: the worker is drained or stopped",
            "Ask another worker",
        ) from None
