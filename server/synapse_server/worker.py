"""The engine of a node: a Triton that it starts and supervises, or one that runs already."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from synapse_server.config import ServerConfig, StartError
from synapse_worker.config import BUNDLED_MODELS, WorkerConfig
from synapse_worker.errors import WorkerError
from synapse_worker.supervisor import Supervisor, WorkerState, WorkerStatus

logger = logging.getLogger(__name__)


class Engine:
    """Where the engine answers, and whether it is up."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.ready = asyncio.Event()
        self.ready.set()
        self._was_ready = False

    def changed(self, status: WorkerStatus) -> None:
        """Hold jobs back while the worker is away, and say what is the matter with it."""
        if status.state is WorkerState.READY:
            self._was_ready = True
            self.ready.set()
            return
        self.ready.clear()
        if status.state is WorkerState.RESTARTING:
            logger.warning("the worker is restarted: %s", status.cause)
        if status.state is WorkerState.FAILED and self._was_ready:
            logger.error("the worker has failed: %s. %s", status.cause, status.remedy)


@contextlib.asynccontextmanager
async def running_engine(config: ServerConfig) -> AsyncIterator[Engine]:
    """The engine of `config`, up; ended on leaving if it was started here.

    Raises:
        StartError: it cannot be started.
    """
    if config.engine_url is not None:
        yield Engine(config.engine_url)
        return
    running = Engine("")
    supervisor = Supervisor(_worker_config(config), on_change=running.changed)
    try:
        await supervisor.start()
    except WorkerError as error:
        raise StartError(str(error)) from error
    running.endpoint = supervisor.grpc_address
    try:
        yield running
    finally:
        await supervisor.stop()


def _worker_config(config: ServerConfig) -> WorkerConfig:
    own = (config.models_dir,) if config.models_dir is not None else ()
    try:
        return WorkerConfig(
            models=config.models,
            venv=config.worker_venv,
            model_repositories=(*own, BUNDLED_MODELS),
            state_dir=config.data_dir / "worker",
        )
    except WorkerError as error:
        raise StartError(str(error)) from error
