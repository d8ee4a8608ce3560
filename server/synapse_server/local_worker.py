"""A worker of this machine: its agent in this process, and the heartbeats that tell of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from synapse.domain.pool import Pool
from synapse.domain.worker import CacheLevel, Worker, WorkerModel, WorkerState
from synapse_server.config import FleetTimes
from synapse_worker.agent import Agent, AgentConfig, AgentState, Snapshot
from synapse_worker.config import WorkerConfig

if TYPE_CHECKING:
    from synapse.ports import Clock, WorkerRegistry

logger = logging.getLogger(__name__)

HEALTH_INTERVAL_S = 0.5
"""How often an engine is asked how it is, unless heartbeats are to come oftener."""

STOP_TIMEOUT_S = 3.0
"""What Triton may still take for its requests: the server has waited for them before that. Now and
then it waits for nobody, where a caller hung up just as the answer came."""

READY_TIMEOUT_S = WorkerConfig.ready_timeout_s
STARTUPS = 4.0
"""A start, or the load of one model, may take as many times the pool's `startup_s`, but at least
`READY_TIMEOUT_S`: that is a first guess, and what is broken off begins anew."""

DRAIN_AGAIN_S = 1.0
"""After the agent has waited in vain for what a worker that is to go still works on."""


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """How one worker of a pool is started; `models` are loaded before it is up."""

    id: str
    pool: Pool
    models: tuple[str, ...]
    model_parameters: Mapping[str, Mapping[str, str]]
    model_repositories: tuple[Path, ...]
    venv: Path
    state_dir: Path
    memory_budget_bytes: int | None = None
    times: FleetTimes = field(default_factory=FleetTimes)

    def agent_config(self) -> AgentConfig:
        """The same in the agent's words.

        Raises:
            WorkerError: there cannot be such a worker.
        """
        worker = WorkerConfig(
            models=self.models,
            venv=self.venv,
            model_repositories=self.model_repositories,
            state_dir=self.state_dir,
            health_interval_s=min(HEALTH_INTERVAL_S, self.times.beat_every_s),
            hang_timeout_s=self.times.hang_timeout_s,
            model_parameters=self.model_parameters,
            ready_timeout_s=max(READY_TIMEOUT_S, STARTUPS * self.pool.startup_s),
            stop_timeout_s=STOP_TIMEOUT_S,
        )
        return AgentConfig(
            worker,
            accelerator=self.pool.accelerator,
            id=self.id,
            memory_budget_bytes=self.memory_budget_bytes,
        )


class LocalWorker:
    """Start it, wait until it has failed, drain it, stop it; it beats for as long as it lives."""

    def __init__(self, setup: WorkerSetup, registry: WorkerRegistry, clock: Clock) -> None:
        """Nothing is started.

        Raises:
            WorkerError: there cannot be such a worker.
        """
        self.id = setup.id
        self._setup = setup
        self._registry = registry
        self._clock = clock
        self._changed = asyncio.Event()
        self._failed = asyncio.Event()
        self._told = ""
        self._was_up = False
        self._agent = Agent(setup.agent_config(), on_change=self._agent_changed)
        self._heart: asyncio.Task[None] | None = None

    @property
    def detail(self) -> str:
        """What is the matter with it; empty if nothing is."""
        return self._agent.snapshot().detail

    @property
    def is_busy(self) -> bool:
        """Whether something waits or is worked on in its engine."""
        snapshot = self._agent.snapshot()
        return snapshot.state is AgentState.INFERRING or snapshot.queue_length > 0

    async def start(self) -> None:
        """Return once it answers for its models.

        Raises:
            WorkerError: it does not; nothing of it is left running.
        """
        self._heart = asyncio.create_task(self._beat_on(), name=f"beat-{self.id}")
        await self._agent.start()
        self._was_up = True
        await self._beat()

    async def wait_failed(self) -> None:
        """Return when its engine has died too often to be started again."""
        await self._failed.wait()

    @property
    def models(self) -> Collection[str]:
        """Those that it has loaded."""
        known = self._agent.snapshot().models
        return [model.name for model in known if CacheLevel(model.level) is CacheLevel.GPU_RESIDENT]

    async def load(
        self,
        model: str,
        used_at: Mapping[str, float],
        keep: Collection[str],
        yielding: Collection[str],
    ) -> None:
        """Return once the model answers; those go to make room that were used the longest ago.

        But none of those to `keep`, and of the busy ones only those `yielding`.

        Raises:
            WorkerError: it cannot be loaded, or not now.
        """
        await self._agent.load(model, used_at=used_at, keep=keep, yielding=yielding)
        await self._beat()

    async def drain(self) -> None:
        """Take nothing new; return when nothing is under way any more, however long that takes."""
        self._was_up = False
        drained = asyncio.create_task(self._agent.drain())
        await asyncio.sleep(0)
        await self._beat()
        while not await drained:
            await asyncio.sleep(DRAIN_AGAIN_S)
            drained = asyncio.create_task(self._agent.drain())

    async def stop(self) -> None:
        """End it, with what it still has; it has left then, and is not missed."""
        self._was_up = False  # What is said of it from here on is no news.
        if self._heart is not None:
            self._heart.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._heart
        await self._registry.forget(self.id)
        await self._agent.stop()

    def _agent_changed(self, snapshot: Snapshot) -> None:
        self._changed.set()
        if snapshot.has_failed:
            self._failed.set()
        trouble = snapshot.detail if snapshot.state is AgentState.DEGRADED else ""
        if trouble and trouble != self._told and self._was_up and not snapshot.has_failed:
            logger.warning("worker %s: %s", self.id, trouble)
        self._told = trouble

    async def _beat_on(self) -> None:
        while True:
            await self._beat()
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._setup.times.beat_every_s):
                    await self._changed.wait()

    async def _beat(self) -> None:
        worker = worker_of(
            self._agent.snapshot(), self._setup.pool, self._clock(), self._setup.times.lease_s
        )
        # One without a proof of life is not to be brought back by its own agent's.
        if worker.is_alive(worker.beat_at):
            await self._registry.beat(worker)


def worker_of(snapshot: Snapshot, pool: Pool, now: float, lease_s: float) -> Worker:
    """An agent's snapshot as a heartbeat.

    While the engine is said to be up, the lease runs from its last answer: an agent that lives
    proves nothing of an engine that hangs. While it is being started, the agent's word counts.
    """
    is_up = snapshot.state in (AgentState.READY, AgentState.INFERRING, AgentState.IDLE)
    proof_at = snapshot.answered_at if is_up else now
    return Worker(
        id=snapshot.id,
        pool=pool.name,
        accelerator=pool.accelerator,
        state=WorkerState(snapshot.state),
        endpoint=snapshot.endpoint,
        models=tuple(
            WorkerModel(model.name, model.version, CacheLevel(model.level))
            for model in snapshot.models
        ),
        started_at=snapshot.started_at,
        beat_at=now,
        lease_until=proof_at + lease_s,
        queue_length=snapshot.queue_length,
        gpu_utilisation=snapshot.gpu_utilisation,
        free_memory_bytes=snapshot.free_memory_bytes,
        kv_cache_use=snapshot.kv_cache_use,
        kv_cache_hit_rate=snapshot.kv_cache_hit_rate,
        detail=snapshot.detail,
    )
