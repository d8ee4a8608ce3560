"""Keeps one Triton alive: starts it, watches it, starts it again, and ends it cleanly."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

from synapse_worker.backoff import RestartBudget
from synapse_worker.config import WorkerConfig
from synapse_worker.diagnosis import diagnose
from synapse_worker.errors import PortTaken, TritonCrash, WorkerError
from synapse_worker.health import http_status, is_loaded
from synapse_worker.ports import check_port_is_free, free_ports
from synapse_worker.process import TritonProcess
from synapse_worker.runtime import REINSTALL
from synapse_worker.staging import build_stage
from synapse_worker.stubs import Gone, live_stubs, lost_models
from synapse_worker.triton import Ports, TritonProgram, prepare

HEALTH_TIMEOUT_S = 5.0
READY_POLL_S = 0.02


class WorkerState(StrEnum):
    """Where the worker is in its life."""

    STOPPED = "STOPPED"
    STARTING = "STARTING"
    READY = "READY"
    RESTARTING = "RESTARTING"
    STOPPING = "STOPPING"
    FAILED = "FAILED"


@dataclass(frozen=True)
class WorkerStatus:
    """What a health page shows. `cause` and `remedy` tell of the last trouble, if any."""

    state: WorkerState
    cause: str = ""
    remedy: str = ""
    restarts: int = 0
    pid: int | None = None


StatusListener = Callable[[WorkerStatus], None]


class Supervisor:
    """Owns a Triton process. Use as `async with Supervisor(config) as worker:` or start and stop.

    The event loop's thread must outlive Triton: when that thread ends, the kernel ends Triton.
    """

    def __init__(
        self,
        config: WorkerConfig,
        on_change: StatusListener | None = None,
        chance: Callable[[], float] = random.random,
        before_run: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing is started yet; `before_run` is called before each start of Triton.

        What it raises as WorkerError is taken for one of Triton's.
        """
        self._config = config
        self._on_change = on_change
        self._chance = chance
        self._before_run = before_run
        self._status = WorkerStatus(WorkerState.STOPPED)
        self._changed = asyncio.Event()
        self._given_ports = Ports(config.http_port, config.grpc_port, config.metrics_port)
        self._ports = self._given_ports
        self._log_file = config.log_file or config.state_dir / "triton.log"
        self._process: TritonProcess | None = None
        self._program: TritonProgram | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._given_up: WorkerError | None = None
        self.answered_at = 0.0
        """When Triton last said that it is well, in seconds since the epoch."""

    @property
    def status(self) -> WorkerStatus:
        """The present state."""
        return self._status

    @property
    def grpc_address(self) -> str:
        """`host:port` for tritonclient; stays the same over restarts."""
        return f"{self._config.host}:{self._ports.grpc}"

    @property
    def http_address(self) -> str:
        """`host:port` of the HTTP endpoint."""
        return f"{self._config.host}:{self._ports.http}"

    @property
    def metrics_address(self) -> str:
        """`host:port` of the Prometheus endpoint."""
        return f"{self._config.host}:{self._ports.metrics}"

    async def start(self) -> None:
        """Return once every model is ready; raise WorkerError, with nothing left running, if not.

        A first start is tried once: what stops it is most often a mistake that stays one. Only a
        Triton that fell over by itself gets a second chance, and one whose port was taken between
        its choice and its use.
        """
        if self._watcher is not None and not self._watcher.done():
            raise WorkerError("The worker is already running", "Stop it first")
        self._set(WorkerStatus(WorkerState.STARTING))
        try:
            self._program = await asyncio.to_thread(prepare, self._config)
            self._ports = self._choose_ports()
            self._process = await self._first_run()
        except WorkerError as error:
            self._fail(error)
            raise
        except BaseException:
            self._set(WorkerStatus(WorkerState.STOPPED))
            raise
        self._watcher = asyncio.create_task(self._watch(), name="triton-supervisor")

    def keep(self, models: Iterable[str]) -> None:
        """Load these, and no others, when Triton has to be started again."""
        if self._program is not None:
            config = replace(self._program.config, models=tuple(models))
            self._program = replace(self._program, config=config)

    def give_up(self, trouble: WorkerError) -> None:
        """Have Triton started again, for what only those see who talk to it."""
        self._given_up = trouble

    async def stop(self) -> None:
        """Let running requests finish within `stop_timeout_s`, then end all of Triton."""
        self._set(replace(self._status, state=WorkerState.STOPPING))
        if self._watcher is not None:
            self._watcher.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watcher
            self._watcher = None
        if self._process is not None:
            await self._process.stop(self._config.stop_timeout_s)
            self._process = None
        self._set(replace(self._status, state=WorkerState.STOPPED, pid=None))

    async def wait_for(self, *states: WorkerState) -> WorkerStatus:
        """Wait until the worker is in one of these states."""
        while self._status.state not in states:
            await self._changed.wait()
        return self._status

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    def _choose_ports(self) -> Ports:
        host = self._config.host
        given = vars(self._ports).values()
        # Six, since up to three of them may be among those given.
        spare = (port for port in free_ports(host, 6) if port not in given)
        chosen = Ports(*(port or next(spare) for port in given))
        for port in vars(chosen).values():
            check_port_is_free(host, port)
        return chosen

    async def _first_run(self) -> TritonProcess:
        try:
            return await self._run_until_ready()
        except TritonCrash:
            # Its Python backend aborts now and then as it comes up, over a lock in shared memory
            # (boost::interprocess::lock_exception; Triton's issue 8882).
            return await self._run_until_ready()
        except PortTaken:
            self._ports = self._given_ports
            self._ports = self._choose_ports()
            return await self._run_until_ready()

    async def _run_until_ready(self) -> TritonProcess:
        assert self._program is not None
        # Its folders are in a cache, which may have been cleaned since the last time.
        self._before_run()
        stage = await asyncio.to_thread(build_stage, self._program.config, self._program.runtime)
        self._program = replace(self._program, stage=stage)
        try:
            process = await TritonProcess.spawn(self._program, self._ports, self._log_file)
        except OSError as error:
            raise WorkerError(
                f"Triton cannot be started: {error.strerror or error}".rstrip("."),
                REINSTALL,
            ) from error
        try:
            async with asyncio.timeout(self._config.ready_timeout_s):
                await self._wait_until_ready(process)
        except (WorkerError, TimeoutError) as error:
            await process.kill()
            if isinstance(error, WorkerError):
                raise
            log = process.log_since_start()
            raise diagnose(log, None, str(self._log_file)) from error
        except BaseException:
            await process.kill()
            raise
        self.answered_at = time.time()
        self._given_up = None
        self._set(replace(self._status, state=WorkerState.READY, pid=process.pid))
        return process

    async def _wait_until_ready(self, process: TritonProcess) -> None:
        while await self._http("/v2/health/ready") != 200:
            if process.exit_code is not None:
                await process.kill()  # until then its log may not have come to its end
                raise diagnose(process.log_since_start(), process.exit_code, str(self._log_file))
            await asyncio.sleep(READY_POLL_S)

    @property
    def _patience_s(self) -> float:
        """That with one question; it must leave time to see that Triton hangs."""
        return min(HEALTH_TIMEOUT_S, self._config.hang_timeout_s / 2)

    async def _http(self, path: str) -> int | None:
        return await http_status(self._config.host, self._ports.http, path, self._patience_s)

    async def _watch(self) -> None:
        """Restart Triton whenever it dies, until the restart budget is spent."""
        budget = RestartBudget(self._config.restart)
        while self._process is not None:
            trouble = await self._wait_for_trouble(self._process)
            delay_s = self._plan_restart(budget, trouble)
            # Told before this: taking down gigabytes of model can last a second or two.
            await self._process.kill()
            self._process = None
            while self._process is None:
                if delay_s is None:
                    self._fail(trouble)
                    return
                await asyncio.sleep(delay_s)
                try:
                    self._process = await self._run_until_ready()
                except WorkerError as error:
                    trouble = error
                    delay_s = self._plan_restart(budget, trouble)

    def _plan_restart(self, budget: RestartBudget, trouble: WorkerError) -> float | None:
        """Say that the worker is away, and how long it will wait; None: it will not come back."""
        delay_s = budget.delay_after_death(time.monotonic(), self._chance)
        restarts = self._status.restarts + (delay_s is not None)
        self._set(
            WorkerStatus(WorkerState.RESTARTING, trouble.cause, trouble.remedy, restarts=restarts)
        )
        return delay_s

    async def _wait_for_trouble(self, process: TritonProcess) -> WorkerError:
        ended = asyncio.create_task(process.wait())
        health = asyncio.create_task(self._wait_for_illness(process))
        try:
            await asyncio.wait({ended, health}, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                return health.result()
        finally:
            ended.cancel()
            health.cancel()
        return diagnose("", process.exit_code, str(self._log_file))

    async def _wait_for_illness(self, process: TritonProcess) -> WorkerError:
        """What Triton does not die of, but cannot work with either."""
        stubs = live_stubs(process.pid)
        gone = Gone()
        silent_s = 0.0
        while True:
            began_s = time.monotonic()
            await asyncio.sleep(self._config.health_interval_s)
            if self._given_up is not None:
                return self._given_up
            process.bound_log()
            now = live_stubs(process.pid)
            lost = lost_models(stubs, now)
            for model in lost:
                # One that was unloaded through Triton's API is no loss; it may be back by now.
                loaded = await is_loaded(self.http_address, model, self._patience_s)
                if loaded and model in lost_models(stubs, live_stubs(process.pid)):
                    return self._backend_died(model)
            stubs = now
            gone.note(lost, now, time.monotonic())
            orphan = await gone.still_held(self.http_address, time.monotonic())
            if orphan is not None:
                return self._backend_died(orphan)
            if await self._http("/v2/health/live") == 200:
                silent_s, self.answered_at = 0.0, time.time()
                continue
            # No more for one question than it may take: while all of us stood still, in a Lambda
            # between two calls, nobody could answer it.
            most_s = self._config.health_interval_s + self._patience_s
            silent_s += min(time.monotonic() - began_s, most_s)
            if silent_s > self._config.hang_timeout_s:
                return WorkerError("Triton no longer answers", f"See {self._log_file}")

    def _backend_died(self, model: str) -> WorkerError:
        return WorkerError(f"The backend of {model} died", f"See {self._log_file}")

    def _fail(self, error: WorkerError) -> None:
        restarts = self._status.restarts
        self._set(WorkerStatus(WorkerState.FAILED, error.cause, error.remedy, restarts=restarts))

    def _set(self, status: WorkerStatus) -> None:
        self._status = status
        self._changed.set()
        self._changed = asyncio.Event()
        if self._on_change is not None:
            self._on_change(status)
