"""Owns a worker: its Triton, the models in it, and what is told of both."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import replace

from synapse_worker.agent.config import AgentConfig
from synapse_worker.agent.errors import NotNow
from synapse_worker.agent.folder import ModelFolder
from synapse_worker.agent.known import Doing, Known
from synapse_worker.agent.models import Models
from synapse_worker.agent.shelf import Shelf
from synapse_worker.agent.snapshot import AgentState, ModelStatus, Snapshot
from synapse_worker.agent.triton_models import TritonModels
from synapse_worker.agent.vitals import Vitals
from synapse_worker.cache import CacheLevel, ModelCache
from synapse_worker.errors import WorkerError
from synapse_worker.supervisor import Supervisor, WorkerState, WorkerStatus

logger = logging.getLogger(__name__)

TIDY_INTERVAL_S = 5.0
SWEEP_INTERVAL_S = 60.0


class Agent:
    """A worker under control. Start it, ask it for models, drain it, stop it.

    Like the supervisor it wraps, it must be started in a thread that outlives Triton.
    """

    def __init__(
        self, config: AgentConfig, on_change: Callable[[Snapshot], None] | None = None
    ) -> None:
        """Nothing is started yet. `on_change` is told whenever something worth telling changed."""
        folder = ModelFolder(config.worker.state_dir)
        worker = replace(config.worker, model_folder=folder.path)
        cache = ModelCache(config.cache) if config.cache is not None else None
        self._config = config
        self._on_change = on_change
        self._supervisor = Supervisor(
            worker, on_change=self._supervisor_changed, before_run=folder.mend
        )
        self._triton = TritonModels(self._supervisor, worker.ready_timeout_s)
        self._vitals = Vitals(self._supervisor, self._triton)
        self._shelf = Shelf(worker, cache)
        self._models = Models(
            config,
            self._shelf,
            folder,
            self._triton,
            self._vitals.model_bytes_now,
            self._models_changed,
        )
        self._started_at = time.time()
        self._is_started = False
        self._is_draining = False
        self._changed = asyncio.Event()
        self._told: object = None
        self._loops: list[asyncio.Task[None]] = []
        self._sweep_at = 0.0

    @property
    def grpc_address(self) -> str:
        """`host:port` where Triton speaks the Open Inference Protocol, for those beside it."""
        return self._supervisor.grpc_address

    @property
    def endpoint(self) -> str:
        """`host:port` of the same for others, as heartbeats tell it."""
        host, _, port = self.grpc_address.rpartition(":")
        return f"{self._config.endpoint_host or host}:{port}"

    async def start(self) -> None:
        """Return once Triton answers for every model to start with.

        Raises:
            WorkerError: it could not; nothing is left running.
        """
        if self._loops:
            raise WorkerError("The worker is already running", "Stop it first")
        self._started_at = time.time()
        self._is_draining = False
        try:
            await self._models.fetch_first()
            await self._supervisor.start()
        except BaseException:
            await self._models.close()
            raise
        self._is_started = True
        self._models.note_started()
        self._loops = [
            asyncio.create_task(self._every(self._config.poll_interval_s, self._measure)),
            asyncio.create_task(self._every(TIDY_INTERVAL_S, self._tidy)),
        ]

    async def stop(self) -> None:
        """Let running requests finish within `stop_timeout_s`, then end Triton."""
        self._is_started = False
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops = []
        await self._supervisor.stop()
        await self._models.close()
        self._vitals.clear()
        self._tell()

    async def load(
        self,
        model: str,
        version: str | None = None,
        used_at: Mapping[str, float] | None = None,
        keep: Collection[str] = (),
        yielding: Collection[str] = (),
    ) -> None:
        """Return once the model answers; one that is loaded answers already.

        `used_at` is when each model was last asked for (seconds since the epoch), from who knows
        that better than Triton's counters, which count probes as well. Those to `keep` are not
        unloaded to make room, and of the busy ones only those `yielding`, once what they were
        asked is answered.

        Raises:
            WorkerError: it could not be had or loaded; the other models are not disturbed.
        """
        if self._is_draining or not self._is_started:
            raise NotNow(self._why_not(), "Ask another worker")
        if used_at is not None:
            self._models.told_uses(used_at)
        await self._models.load(model, version, keep, yielding)

    async def unload(self, model: str) -> None:
        """Return once the model is out of memory and what it was asked is answered.

        Raises:
            WorkerError: there is no such model, or it still works after `drain_timeout_s`.
        """
        await self._models.unload(model)

    async def drain(self) -> bool:
        """Be told as DEGRADED from now on; return when nothing is under way any more.

        False: something still was after `drain_timeout_s`. It may be asked to wait again.
        """
        self._is_draining = True
        self._tell()
        if not self._triton.is_up:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._config.drain_timeout_s):
                await self._vitals.wait_quiet()
        try:
            # What Triton has in hand no metric tells; it lets go of a model when all is answered.
            await self._models.empty()
        except WorkerError as error:
            logger.info("%s: %s", self._config.id, error)
            return await self._is_held_for_nobody()
        return True

    async def _is_held_for_nobody(self) -> bool:
        """Whether the engines of all models that Triton still has say that nothing is under way.

        It is never done with a request whose caller hung up in the moment of the answer.
        """
        readings = await self._triton.readings() if self._triton.is_up else None
        held = [known.name for known in self._models.all() if known.takes_memory]
        return readings is not None and all(map(readings.is_idle, held))

    async def wait_failed(self) -> WorkerStatus:
        """Return when Triton has died too often to be started again, and say of what."""
        return await self._supervisor.wait_for(WorkerState.FAILED)

    async def beats(self, period_s: float) -> AsyncIterator[Snapshot]:
        """A snapshot now, at every change, and `period_s` after the last one; without end."""
        while True:
            changed = self._changed
            yield self.snapshot()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(period_s):
                    await changed.wait()

    def snapshot(self) -> Snapshot:
        """How the worker is."""
        status, readings = self._supervisor.status, self._vitals.readings
        has_failed = status.state is WorkerState.FAILED
        return Snapshot(
            id=self._config.id,
            state=self._state(status),
            accelerator=self._config.accelerator,
            endpoint=self.endpoint,
            models=tuple(self._model_status(known) for known in self._models.all()),
            at=time.time(),
            started_at=self._started_at,
            answered_at=self._supervisor.answered_at,
            has_failed=has_failed,
            detail="draining" if self._is_draining and not has_failed else status.cause,
            restarts=status.restarts,
            pid=status.pid,
            queue_length=readings.queue_length,
            running=readings.running,
            gpu_utilisation=readings.gpu_utilisation,
            free_memory_bytes=self._vitals.free_memory_bytes,
            memory_bytes=self._vitals.memory_bytes,
            kv_cache_use=readings.kv_cache_use,
            kv_cache_hit_rate=readings.kv_cache_hit_rate,
        )

    def _state(self, status: WorkerStatus) -> AgentState:
        """Of what is under way that which takes longest to be over."""
        doing = {known.doing for known in self._models.all()}
        is_down = self._is_started and status.state is not WorkerState.READY
        if (
            self._is_draining
            or is_down
            or status.state
            in (
                WorkerState.FAILED,
                WorkerState.STOPPING,
            )
        ):
            return AgentState.DEGRADED
        if Doing.DOWNLOADING in doing:
            return AgentState.DOWNLOADING
        if Doing.LOADING in doing or status.state is WorkerState.STARTING:
            return AgentState.LOADING
        if status.state is not WorkerState.READY:
            return AgentState.DEGRADED
        if self._vitals.is_busy:
            return AgentState.INFERRING
        return AgentState.READY if self._models.loaded else AgentState.IDLE

    def _model_status(self, known: Known) -> ModelStatus:
        is_there = known.is_loaded and self._triton.is_up
        return ModelStatus(
            name=known.name,
            version=known.version,
            level=CacheLevel.GPU_RESIDENT if is_there else known.level,
            endpoint=self.endpoint if is_there else "",
            is_pinned=self._config.is_pinned(known.name),
            doing=known.doing,
            progress=known.progress,
            error=known.error,
            memory_bytes=known.memory_bytes if known.takes_memory else None,
            last_used_at=known.last_used_at,
        )

    async def _measure(self) -> None:
        if await self._vitals.measure():
            self._models.note(self._vitals.readings, time.time())
        self._models.measure(self._vitals.model_bytes)
        self._tell()

    async def _tidy(self) -> None:
        """Unload what nobody uses, keep the cache in order, see how near everything is."""
        for model in self._models.overdue(self._vitals.readings, time.time()):
            await self._models.unload(model)
        if time.monotonic() >= self._sweep_at:
            self._sweep_at = time.monotonic() + SWEEP_INTERVAL_S
            await self._shelf.sweep()
        await self._models.look_around()

    async def _every(self, interval_s: float, do: Callable[[], Awaitable[None]]) -> None:
        """Again and again, whatever comes of it."""
        while True:
            try:
                await do()
            except WorkerError as error:
                logger.warning("%s: %s", self._config.id, error)
            except Exception:
                logger.exception("%s cannot look after its worker", self._config.id)
            await asyncio.sleep(interval_s)

    def _why_not(self) -> str:
        return "The worker is being drained" if self._is_draining else "The worker is not running"

    def _supervisor_changed(self, _: WorkerStatus) -> None:
        self._tell()

    def _models_changed(self) -> None:
        if self._is_started:
            self._supervisor.keep(self._models.loaded)
        self._tell()

    def _tell(self) -> None:
        """Tell of a change, if it is one that others should hear of before the next heartbeat."""
        snapshot = self.snapshot()
        models = [(m.name, m.version, m.level, m.doing, m.error) for m in snapshot.models]
        told = (snapshot.state, snapshot.detail, snapshot.has_failed, models)
        if told == self._told:
            return
        self._told = told
        self._changed.set()
        self._changed = asyncio.Event()
        if self._on_change is not None:
            self._on_change(snapshot)
