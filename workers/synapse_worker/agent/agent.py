"""Owns a worker: its Triton, the models in it, and what is told of both."""

import time
from collections.abc import Callable

from synapse_worker.agent.config import AgentConfig
from synapse_worker.agent.snapshot import AgentState, CacheLevel, ModelStatus, Snapshot
from synapse_worker.errors import WorkerError
from synapse_worker.supervisor import Supervisor, WorkerState, WorkerStatus

STATES = {
    WorkerState.STOPPED: AgentState.DEGRADED,
    WorkerState.STARTING: AgentState.LOADING,
    WorkerState.RESTARTING: AgentState.DEGRADED,
    WorkerState.STOPPING: AgentState.DEGRADED,
    WorkerState.FAILED: AgentState.DEGRADED,
}


class Agent:
    """A worker under control. Start it, ask it for models, drain it, stop it.

    Like the supervisor it wraps, it must be started in a thread that outlives Triton.
    """

    def __init__(
        self, config: AgentConfig, on_change: Callable[[Snapshot], None] | None = None
    ) -> None:
        """Nothing is started yet. `on_change` is told whenever something worth telling changed."""
        self._config = config
        self._on_change = on_change
        self._supervisor = Supervisor(config.worker, on_change=self._supervisor_changed)
        self._started_at = time.time()
        self._is_draining = False

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
        self._started_at = time.time()
        await self._supervisor.start()

    async def stop(self) -> None:
        """Let running requests finish within `stop_timeout_s`, then end Triton."""
        await self._supervisor.stop()

    async def load(self, model: str, version: str | None = None) -> None:
        """Return once the model answers; one that is loaded answers already.

        Raises:
            WorkerError: it could not be had or loaded; the other models are not disturbed.
        """
        if model not in self._config.worker.models:
            raise WorkerError(f"{model!r} cannot be loaded", "Name it in the configuration")

    async def unload(self, model: str) -> None:
        """Return once the model is out of memory and what it was asked is answered."""
        raise WorkerError(f"{model!r} cannot be unloaded", "")

    async def drain(self) -> None:
        """Be told as DEGRADED from now on; return when nothing is under way any more."""
        self._is_draining = True
        self._tell()

    def snapshot(self) -> Snapshot:
        """How the worker is."""
        status = self._supervisor.status
        return Snapshot(
            id=self._config.id,
            state=self._state(status),
            accelerator=self._config.accelerator,
            endpoint=self.endpoint,
            models=tuple(self._models(status)),
            at=time.time(),
            started_at=self._started_at,
            answered_at=self._supervisor.answered_at,
            has_failed=status.state is WorkerState.FAILED,
            detail="draining" if self._is_draining else status.cause,
            restarts=status.restarts,
        )

    def _state(self, status: WorkerStatus) -> AgentState:
        if self._is_draining:
            return AgentState.DEGRADED
        idle = AgentState.READY if self._config.worker.models else AgentState.IDLE
        return STATES.get(status.state, idle)

    def _models(self, status: WorkerStatus) -> list[ModelStatus]:
        is_up = status.state is WorkerState.READY
        level = CacheLevel.GPU_RESIDENT if is_up else CacheLevel.NVME_CACHED
        endpoint = self.endpoint if is_up else ""
        return [ModelStatus(name, "1", level, endpoint) for name in self._config.worker.models]

    def _supervisor_changed(self, _: WorkerStatus) -> None:
        self._tell()

    def _tell(self) -> None:
        if self._on_change is not None:
            self._on_change(self.snapshot())
